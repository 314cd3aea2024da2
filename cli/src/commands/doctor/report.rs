//! The findings of `taskgate doctor`, and how they are printed.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::Serialize;

use crate::{commands::snapshot::ReadError, output::Style};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// It works but needs attention, or it could not be checked.
    Warning,
    /// It does not work.
    Failure,
}

/// The subject of a finding. Its name, in kebab case, is an interface for programs. The order is that of the report: a check comes
/// after those that it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Check {
    ApiServer,
    Clock,
    Switch,
    Kinds,
    Registration,
    Neighbours,
    Order,
    Certificate,
    CaBundle,
    Answers,
    Replicas,
    Versions,
    Leader,
    Rights,
    Kelos,
    Foreman,
    Kueue,
    CertManager,
    Namespaces,
    Policies,
    Queues,
}

impl Check {
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether taskgate enforces nothing while it fails. The other checks are about single policies, and waiting does not help.
    fn is_about_enforcement(self) -> bool {
        !matches!(self, Self::Namespaces | Self::Policies | Self::Queues | Self::Kueue)
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) level: Level,
    pub(super) message: String,
    /// What to do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

/// The findings of all checks, in the order in which they run.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn ok(&mut self, check: Check, message: impl Into<String>) {
        self.add(Level::Ok, check, message, None);
    }

    pub(super) fn warning(&mut self, check: Check, message: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Warning, check, message, Some(advice.into()));
    }

    pub(super) fn failure(&mut self, check: Check, message: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Failure, check, message, Some(advice.into()));
    }

    /// `what` could not be read.
    pub(super) fn unreadable(&mut self, check: Check, what: &str, error: &ReadError) {
        match error.message() {
            None => self.warning(check, format!("there is no {what}"), "install it again"),
            Some(message) => self.warning(
                check,
                format!("{what}: cannot be read: {message}"),
                "run it as a user with that right, such as a cluster administrator",
            ),
        }
    }

    pub(super) fn add(&mut self, level: Level, check: Check, message: impl Into<String>, advice: Option<String>) {
        self.0.push(Finding {
            check,
            level,
            message: message.into(),
            advice,
        });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// All findings, as they are printed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    pub(super) ok: usize,
    pub(super) warnings: usize,
    pub(super) failures: usize,
}

impl Report {
    pub(super) fn of(Findings(mut findings): Findings) -> Self {
        findings.sort_by_key(|finding| finding.check);
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Self {
            ok: count(Level::Ok),
            warnings: count(Level::Warning),
            failures: count(Level::Failure),
            findings,
        }
    }

    /// Whether no failure keeps taskgate from enforcing.
    pub(super) fn enforces(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.level != Level::Failure || !finding.check.is_about_enforcement())
    }

    /// The report for people: a line for each finding, its advice below it, and a line with the counts at the end.
    pub(super) fn text(&self, style: Style) -> String {
        let width = self.findings.iter().map(|finding| finding.check.name().len());
        let width = width.max().unwrap_or_default();
        let mut text = String::new();
        for Finding {
            check,
            level,
            message,
            advice,
        } in &self.findings
        {
            let level = match level {
                Level::Ok => style.good("ok     "),
                Level::Warning => style.warning("warning"),
                Level::Failure => style.bad("failure"),
            };
            let _ = writeln!(text, "{level}  {:width$}  {message}", check.name());
            if let Some(advice) = advice {
                let _ = writeln!(text, "{:9}{:width$}  {}", "", "", style.faint(format!("do: {advice}")));
            }
        }
        let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (warnings, failures) = (plural(self.warnings, "warning"), plural(self.failures, "failure"));
        let _ = writeln!(text, "{} ok, {warnings}, {failures}", self.ok);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_a_line_with_its_advice_below() {
        let mut findings = Findings::default();
        findings.warning(Check::Queues, "there is no queue", "make one");
        findings.ok(Check::ApiServer, "v1.36.3");
        let plain = "ok       api-server  v1.36.3\n\
                     warning  queues      there is no queue\n\
                     \x20                    do: make one\n\
                     1 ok, 1 warning, 0 failures\n";
        assert_eq!(Report::of(findings).text(Style::plain()), plain);
    }
}
