//! The result of evaluating a write request, as data: `taskgate check` prints it, and cases compare it.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use taskgate_api::{Mode, metadata::Metadata};
use taskgate_policy::Operation;

use crate::{schema::FieldError, write_request::WriteRequest};

/// The result of a write request, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteVerdict {
    /// It is admitted, possibly changed.
    #[default]
    Allowed,
    /// A webhook of taskgate denies it.
    Denied,
    /// The API server rejects it: the object does not match the schema of its kind.
    Invalid,
    /// It is admitted without taskgate: no webhook matches it.
    NotSent,
    /// taskgate makes no decision, and the failure policy rejects it.
    Failed,
}

impl WriteVerdict {
    /// Whether the request is rejected.
    pub fn is_rejection(self) -> bool {
        matches!(self, Self::Denied | Self::Invalid | Self::Failed)
    }
}

impl fmt::Display for WriteVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::NotSent => "not sent",
            Self::Failed => "failed",
        })
    }
}

/// A call of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvaluatedCall {
    /// The webhook's name.
    pub webhook: String,
    /// 1 for the reinvocation after a later webhook changed the object.
    #[serde(skip_serializing_if = "is_zero")]
    pub round: u8,
    /// Whether the API server sends the request.
    pub sent: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// Its JSON patch; null without changes.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub patch: Value,
    /// Why it made no decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands over a reference.
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// A reason of the decision, with its policy and section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EvaluationReason {
    /// The policy; `None` for a reason without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Its section.
    pub section: &'static str,
    /// The mode of the section.
    pub mode: Mode,
    /// The reason in one word.
    pub code: &'static str,
    /// The reason in one sentence.
    pub message: String,
}

/// The result of a write request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for cluster-scoped objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name, or the prefix of the generated one with a `*`.
    pub name: String,
    /// The operation.
    pub operation: Operation,
    /// The requesting user.
    pub user: String,
    /// The result.
    pub verdict: WriteVerdict,
    /// The HTTP status of a rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why the request is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The webhook that rejects it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<String>,
    /// The schema violations.
    #[serde(rename = "flaws", skip_serializing_if = "Vec::is_empty")]
    pub field_errors: Vec<FieldError>,
    /// The warnings for the user, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The changes by admission, one value per line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// The reasons of the decision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<EvaluationReason>,
    /// The webhooks whose rules name the kind, in the order of the calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<EvaluatedCall>,
    /// The object after admission; null if it was rejected before.
    #[serde(rename = "object", skip_serializing_if = "Value::is_null")]
    pub object_after: Value,
}

impl Evaluation {
    pub(crate) fn of(request: &WriteRequest) -> Self {
        let name = match request.review.name.as_str() {
            "" => format!(
                "{}*",
                Metadata::of(&request.review.object).generate_name().unwrap_or_default()
            ),
            name => name.to_owned(),
        };
        Self {
            api_version: request.api_version(),
            kind: request.review.kind.kind.clone(),
            namespace: request.review.namespace.clone(),
            name,
            operation: request.review.operation,
            user: request.review.user_info.username.clone().unwrap_or_default(),
            verdict: WriteVerdict::Allowed,
            code: None,
            message: None,
            refused_by: None,
            field_errors: Vec::new(),
            warnings: Vec::new(),
            changes: Vec::new(),
            because: Vec::new(),
            calls: Vec::new(),
            object_after: Value::Null,
        }
    }

    /// The object as text: `Task team-a/fixer-42`.
    pub fn title(&self) -> String {
        match self.namespace.as_str() {
            "" => format!("{} {}", self.kind, self.name),
            namespace => format!("{} {namespace}/{}", self.kind, self.name),
        }
    }

    /// Why no request was sent, from the first webhook that might have been called.
    pub fn why_not_sent(&self) -> Option<&str> {
        let why = self.calls.iter().find_map(|call| call.why_not.as_deref());
        why.filter(|_| self.verdict == WriteVerdict::NotSent)
    }

    pub(crate) fn was_sent(&self, webhook: &str) -> bool {
        self.calls.iter().any(|call| call.webhook == webhook && call.sent)
    }

    pub(crate) fn reject_invalid(&mut self, code: u16, errors: Vec<FieldError>) {
        let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
        self.message = Some(messages.join("; "));
        self.verdict = WriteVerdict::Invalid;
        self.code = Some(code);
        self.field_errors = errors;
    }

    /// Rejects the request on behalf of `webhook`, unless it is rejected already.
    pub(crate) fn reject(&mut self, verdict: WriteVerdict, webhook: &str, code: u16, message: String) {
        if !self.verdict.is_rejection() {
            self.verdict = verdict;
            self.code = Some(code);
            self.message = Some(message);
            self.refused_by = Some(webhook.to_owned());
        }
    }
}
