//! The report for people: a paragraph for each object, and a line with the counts at the end.

use std::fmt::Write as _;

use taskgate_offline::{Evaluation, WriteVerdict};

use super::{
    report::{CheckReport, CheckSummary, EvaluatedObject},
    spawner::SpawnerReport,
};
use crate::output::Style;

/// With `quiet` only objects that are refused or have warnings.
pub(super) fn render(report: &CheckReport, style: Style, quiet: bool) -> String {
    let mut text = String::new();
    for bad in &report.unreadable {
        line(&mut text, &format!("{}  {}", bad.location(), style.bad("unreadable")));
        line(&mut text, &format!("  {}", bad.message));
    }
    for duplicate in &report.duplicates {
        let place = &duplicate.location;
        let warning = style.warning("warning:");
        line(
            &mut text,
            &format!("{}:{}  {warning} {duplicate}", place.file, place.line),
        );
    }
    for left_out in &report.left_out {
        let state = style.warning("not in force");
        line(&mut text, &format!("{}  {state}", left_out.policy));
        for problem in &left_out.problems {
            line(&mut text, &format!("  {problem}"));
        }
    }
    for note in &report.notes {
        line(&mut text, &style.warning(note));
    }
    for entry in &report.entries {
        let judgement = &entry.judgement;
        let is_bad = judgement.verdict.is_rejection() || !judgement.warnings.is_empty();
        if is_bad || !quiet {
            paragraph(&mut text, entry, style);
        }
    }
    for spawner in report
        .spawners
        .iter()
        .filter(|spawner| spawner.warning.is_some() || !quiet)
    {
        let SpawnerReport {
            place,
            object,
            effects,
            warning,
            note,
        } = spawner;
        line(
            &mut text,
            &format!("{}:{}  {object}  has policy fields", place.file, place.line),
        );
        if let Some(warning) = warning {
            line(&mut text, &format!("  {} {warning}", style.warning("warning:")));
        }
        for effect in effects {
            line(&mut text, &format!("  {effect}"));
        }
        if let Some(note) = note {
            line(&mut text, &format!("  {}", style.faint(note)));
        }
    }
    line(&mut text, &count(&report.summary()));
    text
}

fn line(text: &mut String, line: &str) {
    let _ = writeln!(text, "{line}");
}

fn paragraph(text: &mut String, entry: &EvaluatedObject, style: Style) {
    let EvaluatedObject { place, judgement } = entry;
    let operation = match judgement.operation {
        taskgate_policy::Operation::Create => String::new(),
        other => format!("{other:?} of ").to_lowercase(),
    };
    let head = format!("{}:{}  {operation}{}", place.file, place.line, judgement.title());
    line(text, &format!("{head}  {}", verdict(judgement, style)));
    if let Some(why) = judgement.why_not_sent() {
        line(text, &format!("  {}", style.faint(why)));
    }
    if let (true, Some(message)) = (judgement.field_errors.is_empty(), &judgement.message) {
        line(text, &format!("  {message}"));
    }
    for flaw in &judgement.field_errors {
        line(text, &format!("  {flaw}"));
    }
    for warning in &judgement.warnings {
        line(text, &format!("  {} {warning}", style.warning("warning:")));
    }
    if !judgement.verdict.is_rejection() {
        for change in &judgement.changes {
            line(text, &format!("  {}", style.good(change)));
        }
    }
    for because in &judgement.because {
        let is_printed =
            judgement.message.as_ref() == Some(&because.message) || judgement.warnings.contains(&because.message);
        if let (true, None) = (is_printed, &because.policy) {
            continue;
        }
        let policy = because.policy.as_deref().unwrap_or("taskgate");
        let mut by = format!("by {policy}, {} ({:?})", because.section, because.mode);
        if !is_printed {
            let _ = write!(by, ": {}", without_names(&because.message));
        }
        line(text, &format!("  {}", style.faint(by)));
    }
}

/// How the name of a policy begins in a message.
const KINDS: [&str; 3] = ["TaskPolicy/", "ClusterTaskPolicy/", "TaskSpawner/"];

/// A message without its prefix, which is printed before it already.
fn without_names(message: &str) -> &str {
    let message = message.strip_prefix("taskgate: ").unwrap_or(message);
    match message.split_once(": ") {
        Some((head, rest)) if KINDS.iter().any(|kind| head.starts_with(kind)) => rest,
        _ => message,
    }
}

fn verdict(judgement: &Evaluation, style: Style) -> String {
    match (judgement.verdict, &judgement.refused_by) {
        (WriteVerdict::Allowed, _) if judgement.changes.is_empty() => style.good("allowed, unchanged"),
        (WriteVerdict::Allowed, _) => style.good("allowed, changed"),
        (WriteVerdict::NotSent, _) => style.faint("not sent"),
        (WriteVerdict::Invalid, _) => style.bad("invalid"),
        (verdict, Some(webhook)) => style.bad(format!("{verdict} by {webhook}")),
        (verdict, None) => style.bad(verdict),
    }
}

/// Such as `5 objects: 3 allowed (2 changed, 1 with warnings), 1 denied, 1 not sent`.
fn count(summary: &CheckSummary) -> String {
    let some = |number: usize, what: &str| (number > 0).then(|| format!("{number} {what}"));
    let join = |parts: &[Option<String>]| parts.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
    let details = match join(&[some(summary.changed, "changed"), some(summary.warned, "with warnings")]) {
        none if none.is_empty() => none,
        details => format!(" ({details})"),
    };
    let parts = join(&[
        Some(format!("{} allowed{details}", summary.allowed)),
        some(summary.denied, "denied"),
        some(summary.invalid, "invalid"),
        some(summary.failed, "failed"),
        some(summary.not_sent, "not sent"),
        some(summary.unreadable, "unreadable"),
        some(summary.other_kinds, "of other kinds"),
    ]);
    let noun = if summary.objects == 1 { "object" } else { "objects" };
    format!("{} {noun}: {parts}", summary.objects)
}
