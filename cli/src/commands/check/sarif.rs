//! A report as SARIF 2.1.0, for code scanning.

use serde_json::{Value, json};

use super::report::Report;

/// The rules: id, and what breaking it means.
const RULES: [(&str, &str); 5] = [
    ("unreadable", "The document is no Kubernetes object."),
    ("denied", "A policy of taskgate denies the object."),
    (
        "invalid",
        "The API server refuses the object: it does not fit the schema of its kind.",
    ),
    ("failed", "taskgate reaches no verdict on the object."),
    ("warning", "Whoever creates the object is warned."),
];

pub(super) fn render(report: &Report) -> Value {
    let mut results = Vec::new();
    let mut tell = |rule: &str, level: &str, file: &str, line: usize, message: &str| {
        results.push(json!({
            "ruleId": rule,
            "level": level,
            "message": {"text": message},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": file}, "region": {"startLine": line}}}],
        }));
    };
    for bad in &report.unreadable {
        tell("unreadable", "error", &bad.file, bad.line.unwrap_or(1), &bad.message);
    }
    for entry in &report.entries {
        let (place, judgement) = (&entry.place, &entry.judgement);
        if judgement.verdict.is_rejection() {
            let message = judgement.message.as_deref().unwrap_or_default();
            let message = format!("{}: {message}", judgement.title());
            tell(
                &judgement.verdict.to_string(),
                "error",
                &place.file,
                place.line,
                &message,
            );
        }
        for warning in &judgement.warnings {
            let message = format!("{}: {warning}", judgement.title());
            tell("warning", "warning", &place.file, place.line, &message);
        }
    }
    let rules = RULES.map(|(id, text)| json!({"id": id, "shortDescription": {"text": text}}));
    let driver = json!({"name": "taskgate", "version": env!("CARGO_PKG_VERSION"), "rules": rules});
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    })
}
