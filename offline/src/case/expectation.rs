//! What came of a write, as far as a case says it.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use taskgate_api::metadata::Metadata;

use crate::{Judgement, Verdict};

/// The part of a judgement that cases compare.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expectation {
    /// When, where the case has several moments.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Timestamp>,
    /// The object, such as `Task team-a/fixer-42`.
    object: String,
    /// What becomes of it. Objects of kinds that taskgate has no rule for are not sent.
    verdict: Verdict,
    /// The HTTP status of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    /// Why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Why it is not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
    /// What whoever asks is told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// What admission changes, one value a line.
    #[serde(rename = "patch", skip_serializing_if = "Vec::is_empty")]
    changes: Vec<String>,
    /// Which policy and section found what, such as `TaskPolicy team-a/agents metadata MetadataSet Enforce`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    because: Vec<String>,
}

impl Expectation {
    /// What `judgement` came to; `None` is an object of a kind that no rule names.
    pub fn of(judgement: Option<&Judgement>, object: &Value, now: Option<Timestamp>) -> Self {
        let Some(judgement) = judgement else {
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = Metadata::of(object).name().unwrap_or_default();
            return Self {
                now,
                object: format!("{kind} {name}"),
                verdict: Verdict::NotSent,
                code: None,
                message: None,
                why_not: Some("no rule names its kind".to_owned()),
                warnings: Vec::new(),
                changes: Vec::new(),
                because: Vec::new(),
            };
        };
        let because = judgement.because.iter().map(|because| {
            let policy = because
                .policy
                .as_deref()
                .map(|policy| format!("{policy} "))
                .unwrap_or_default();
            format!("{policy}{} {} {:?}", because.section, because.code, because.mode)
        });
        Self {
            now,
            object: judgement.title(),
            verdict: judgement.verdict,
            code: judgement.code,
            message: judgement.message.clone(),
            why_not: judgement.why_not_sent().map(ToOwned::to_owned),
            warnings: judgement.warnings.clone(),
            changes: if judgement.verdict.is_refusal() {
                Vec::new()
            } else {
                judgement.changes.clone()
            },
            because: because.collect(),
        }
    }
}
