//! The expectations of a case: the compared part of an evaluation, and how `--update` writes them into the file.

use std::{fs, path::Path};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use taskgate_api::metadata::Metadata;

use super::CaseError;
use crate::{Evaluation, WriteVerdict};

/// The expected or actual result of one write request.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Expectation {
    /// The time, if the case has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Timestamp>,
    /// The object, such as `Task team-a/fixer-42`.
    object: String,
    /// The result. Objects of kinds without a webhook rule are not sent.
    verdict: WriteVerdict,
    /// The HTTP status of a rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    /// Why it is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Why it is not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
    /// The warnings for the user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// The changes by admission, one value per line.
    #[serde(rename = "patch", skip_serializing_if = "Vec::is_empty")]
    changes: Vec<String>,
    /// The reasons with policy and section, such as `TaskPolicy team-a/agents metadata MetadataSet Enforce`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    because: Vec<String>,
}

impl Expectation {
    /// The result in `evaluation`; `None` for an object of a kind without a webhook rule.
    pub(super) fn of(evaluation: Option<&Evaluation>, object: &Value, now: Option<Timestamp>) -> Self {
        let Some(evaluation) = evaluation else {
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = Metadata::of(object).name().unwrap_or_default();
            return Self {
                now,
                object: format!("{kind} {name}"),
                verdict: WriteVerdict::NotSent,
                why_not: Some("no rule names its kind".to_owned()),
                ..Self::default()
            };
        };
        let because = evaluation.because.iter().map(|because| {
            let reason = format!("{} {} {:?}", because.section, because.code, because.mode);
            let policy = because.policy.iter().cloned();
            policy.chain([reason]).collect::<Vec<_>>().join(" ")
        });
        Self {
            now,
            object: evaluation.title(),
            verdict: evaluation.verdict,
            code: evaluation.code,
            message: evaluation.message.clone(),
            why_not: evaluation.why_not_sent().map(ToOwned::to_owned),
            warnings: evaluation.warnings.clone(),
            changes: if evaluation.verdict.is_rejection() {
                Vec::new()
            } else {
                evaluation.changes.clone()
            },
            because: because.collect(),
        }
    }
}

/// The field `expect`, for serialisation.
#[derive(Serialize)]
struct ExpectField<'a> {
    expect: &'a [Expectation],
}

/// Replaces the field `expect` in the file of the case, or appends it; all other text, comments included, stays.
pub(super) fn update_file(path: &Path, expect: &[Expectation]) -> Result<(), CaseError> {
    let io = |source| CaseError::io(path, source);
    let text = fs::read_to_string(path).map_err(io)?;
    let field = serde_saphyr::to_string(&ExpectField { expect });
    let mut field = field.map_err(|error| CaseError::invalid(&path.display(), &error))?;
    if text.contains("\r\n") {
        field = field.replace('\n', "\r\n");
    }
    fs::write(path, replace(&text, &field)).map_err(io)
}

/// Replaces the field `expect` in `text`. It ends at the next field, or at an unindented comment.
fn replace(text: &str, field: &str) -> String {
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let start = lines.iter().position(|line| line.starts_with("expect:"));
    let Some(start) = start else {
        let end = if text.ends_with('\n') || text.is_empty() {
            ""
        } else {
            "\n"
        };
        return format!("{text}{end}{field}");
    };
    let belongs = |line: &&str| line.starts_with([' ', '-', '\n', '\r']);
    let length = lines[start + 1..].iter().take_while(|line| belongs(line)).count();
    let mut end = start + 1 + length;
    while end > start + 1 && lines[end - 1].trim().is_empty() {
        end -= 1;
    }
    [&lines[..start].concat(), field, &lines[end..].concat()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_stay() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("case.yaml");
        fs::write(&path, "a: 1\r\nexpect: []\r\nb: 2\r\n")?;
        update_file(&path, &[Expectation::default()])?;
        let text = fs::read_to_string(&path)?;
        assert!(
            text.contains("verdict: allowed\r\n") && text.ends_with("b: 2\r\n"),
            "{text:?}"
        );
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
        Ok(())
    }

    #[test]
    fn the_text_around_the_field_stays() {
        for (before, after) in [
            ("a: 1\n", "a: 1\nexpect: new\n"),
            ("a: 1", "a: 1\nexpect: new\n"),
            ("expect: []\n", "expect: new\n"),
            (
                "a: 1\nexpect:\n- b: 2\n\n  c: 3\n\n# next\nd: 4\n",
                "a: 1\nexpect: new\n\n# next\nd: 4\n",
            ),
        ] {
            assert_eq!(replace(before, "expect: new\n"), after);
        }
    }
}
