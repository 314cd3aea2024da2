//! The report for people: a line for each finding, what to do below it, and a line at the end that counts.

use std::fmt::Write as _;

use super::finding::{Finding, Level, Report};
use crate::output::Style;

/// The report, with `quiet` without what is fine.
pub(super) fn text(report: &Report, style: Style, quiet: bool) -> String {
    let told = |finding: &&Finding| !quiet || finding.level != Level::Ok;
    let width = report.findings.iter().map(|finding| finding.check.as_str().len());
    let width = width.max().unwrap_or_default();
    let mut text = String::new();
    for finding in report.findings.iter().filter(told) {
        let level = format!("{:7}", finding.level.as_str());
        let level = match finding.level {
            Level::Ok => style.good(level),
            Level::Warning => style.warning(level),
            Level::Failure => style.bad(level),
        };
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{level}  {:width$}  {}", finding.check.as_str(), finding.message);
        if let Some(advice) = &finding.advice {
            let _ = writeln!(text, "{:9}{:width$}  {}", "", "", style.faint(format!("do: {advice}")));
        }
    }
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let _ = writeln!(
        text,
        "{} ok, {}, {}",
        report.ok,
        plural(report.warnings, "warning"),
        plural(report.failures, "failure")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Check, *};

    #[test]
    fn a_line_each_and_what_to_do_below() {
        let report = Report::of(vec![
            Finding::warning(Check::Queues, "there is no queue", "make one"),
            Finding::ok(Check::ApiServer, "v1.36.3"),
        ]);
        let plain = "ok       api-server  v1.36.3\n\
                     warning  queues      there is no queue\n\
                     \x20                    do: make one\n\
                     1 ok, 1 warning, 0 failures\n";
        assert_eq!(text(&report, Style::plain(), false), plain);
        assert!(text(&report, Style::plain(), true).starts_with("warning  queues"));
    }
}
