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
pub(super) enum DoctorCheck {
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
    KelosFields,
    Foreman,
    Kueue,
    CertManager,
    Namespaces,
    Policies,
    Queues,
}

impl DoctorCheck {
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether taskgate enforces nothing while it fails. The other checks are about single policies, and waiting does not help.
    fn is_about_enforcement(self) -> bool {
        !matches!(
            self,
            Self::Namespaces | Self::Policies | Self::Queues | Self::Kueue | Self::KelosFields
        )
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct DoctorFinding {
    pub(super) check: DoctorCheck,
    pub(super) level: Level,
    pub(super) message: String,
    /// What to do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

/// Collects the findings of the checks, one check after the other.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) all: Vec<DoctorFinding>,
    check: DoctorCheck,
    begin: usize,
}

impl Findings {
    pub(super) fn new() -> Self {
        Self {
            all: Vec::new(),
            check: DoctorCheck::ApiServer,
            begin: 0,
        }
    }

    /// Begins a check: the following findings are about it.
    pub(super) fn begin(&mut self, check: DoctorCheck) {
        self.check = check;
        self.begin = self.all.len();
    }

    /// Whether the check has no findings yet.
    pub(super) fn is_clean(&self) -> bool {
        self.begin == self.all.len()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn ok(&mut self, message: impl Into<String>) {
        self.push(Level::Ok, message.into(), None);
    }

    pub(super) fn warning(&mut self, message: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Warning, message, advice);
    }

    pub(super) fn failure(&mut self, message: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Failure, message, advice);
    }

    pub(super) fn add(&mut self, level: Level, message: impl Into<String>, advice: impl Into<String>) {
        self.push(level, message.into(), Some(advice.into()));
    }

    fn push(&mut self, level: Level, message: String, advice: Option<String>) {
        self.all.push(DoctorFinding {
            check: self.check,
            level,
            message,
            advice,
        });
    }

    /// `what` could not be read.
    pub(super) fn unreadable(&mut self, what: &str, error: &ReadError) {
        match error.message() {
            None => self.warning(format!("there is no {what}"), "install it again"),
            Some(message) => self.warning(
                format!("{what}: cannot be read: {message}"),
                "run it as a user with that right, such as a cluster administrator",
            ),
        }
    }
}

/// All findings, as they are printed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DoctorReport {
    pub(super) findings: Vec<DoctorFinding>,
    pub(super) ok: usize,
    pub(super) warnings: usize,
    pub(super) failures: usize,
}

impl DoctorReport {
    pub(super) fn of(mut findings: Vec<DoctorFinding>) -> Self {
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
        for DoctorFinding {
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
        let mut findings = Findings::new();
        findings.begin(DoctorCheck::Queues);
        findings.warning("there is no queue", "make one");
        findings.begin(DoctorCheck::ApiServer);
        findings.ok("v1.36.3");
        let plain = "ok       api-server  v1.36.3\n\
                     warning  queues      there is no queue\n\
                     \x20                    do: make one\n\
                     1 ok, 1 warning, 0 failures\n";
        assert_eq!(DoctorReport::of(findings.all).text(Style::plain()), plain);
    }
}
