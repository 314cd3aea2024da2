//! What became of a write, as data: what the commands print, and what cases expect.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use taskgate_api::Mode;
use taskgate_webhook::ReviewOperation;

use crate::{
    proposal::Proposal,
    registration::{Hook, Sent},
    schema::Flaw,
};

/// What becomes of a write, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It passes, perhaps changed.
    Allowed,
    /// A webhook of taskgate refuses it.
    Denied,
    /// The API server refuses it: the object does not fit the schema of its kind.
    Invalid,
    /// It passes without taskgate: nothing sends it there.
    NotSent,
    /// taskgate reaches no verdict, and the failure policy refuses the write.
    Failed,
}

impl Verdict {
    /// Whether the write is refused.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Denied | Self::Invalid | Self::Failed)
    }
}

impl fmt::Display for Verdict {
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

/// A webhook, and what came of calling it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Its name.
    pub webhook: String,
    /// 1 when it is called once more, as another one changed the object after it.
    #[serde(skip_serializing_if = "is_zero")]
    pub round: u8,
    /// Whether the API server calls it.
    pub sent: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// What it changed, as a JSON patch; null where it changed nothing.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub patch: Value,
    /// Why it reached no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands over a reference.
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// One thing that was found, and the policy and section behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Because {
    /// The policy; `None` for what no policy is behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Its section.
    pub section: &'static str,
    /// How far the section may go.
    pub mode: Mode,
    /// The finding in one word.
    pub code: &'static str,
    /// The finding in one sentence.
    pub message: String,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for what lives in none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name, or the beginning of the one that will be generated, with a `*`.
    pub name: String,
    /// What was to be done.
    pub operation: ReviewOperation,
    /// Who asked.
    pub user: String,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The HTTP status of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The webhook that refuses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<String>,
    /// What does not fit the schema.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flaws: Vec<Flaw>,
    /// What whoever asked is told, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What admission changes, one value a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Which policy and section found what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Because>,
    /// The webhooks whose rules name the kind, in the order of the calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Call>,
    /// The object as admission leaves it; null where it was refused before.
    #[serde(rename = "object", skip_serializing_if = "Value::is_null")]
    pub object_after: Value,
}

impl Judgement {
    pub(crate) fn of(proposal: &Proposal) -> Self {
        let kind = &proposal.kind;
        let generated = || {
            let metadata = taskgate_api::metadata::Metadata::of(&proposal.object);
            format!("{}*", metadata.generate_name().unwrap_or_default())
        };
        Self {
            api_version: match kind.group.as_str() {
                "" => kind.version.clone(),
                group => format!("{group}/{}", kind.version),
            },
            kind: kind.kind.clone(),
            namespace: proposal.namespace.clone(),
            name: if proposal.name.is_empty() {
                generated()
            } else {
                proposal.name.clone()
            },
            operation: proposal.operation,
            user: proposal.user.username.clone(),
            verdict: Verdict::Allowed,
            code: None,
            message: None,
            refused_by: None,
            flaws: Vec::new(),
            warnings: Vec::new(),
            changes: Vec::new(),
            because: Vec::new(),
            calls: Vec::new(),
            object_after: Value::Null,
        }
    }

    /// The object as people name it: `Task team-a/fixer-42`.
    pub fn title(&self) -> String {
        match self.namespace.as_str() {
            "" => format!("{} {}", self.kind, self.name),
            namespace => format!("{} {namespace}/{}", self.kind, self.name),
        }
    }

    /// Why nothing was sent, in the words of the first webhook that might have been called.
    pub fn why_not_sent(&self) -> Option<&str> {
        let why = self.calls.iter().find_map(|call| call.why_not.as_deref());
        why.filter(|_| self.verdict == Verdict::NotSent)
    }

    pub(crate) fn was_sent(&self, webhook: &str) -> bool {
        self.calls.iter().any(|call| call.webhook == webhook && call.sent)
    }

    pub(crate) fn refuse(&mut self, code: u16, flaws: Vec<Flaw>) {
        let messages = flaws.iter().map(|flaw| match (code, flaw.field.as_str()) {
            (400, _) if flaw.message.starts_with("unknown field") => flaw.message.clone(),
            (_, "") => flaw.message.clone(),
            (_, field) => format!("{field}: {}", flaw.message),
        });
        self.message = Some(messages.collect::<Vec<_>>().join("; "));
        self.verdict = Verdict::Invalid;
        self.code = Some(code);
        self.flaws = flaws;
    }

    pub(crate) fn deny(&mut self, webhook: &str, code: u16, message: String) {
        if self.verdict.is_refusal() {
            return;
        }
        self.verdict = Verdict::Denied;
        self.code = Some(code);
        self.message = Some(message);
        self.refused_by = Some(webhook.to_owned());
    }

    pub(crate) fn fail(&mut self, webhook: &str, error: &str) {
        if self.verdict.is_refusal() {
            return;
        }
        self.verdict = Verdict::Failed;
        self.code = Some(500);
        self.message = Some(error.to_owned());
        self.refused_by = Some(webhook.to_owned());
    }
}

impl Call {
    pub(crate) fn of(hook: &Hook, round: u8, sent: &Sent) -> Self {
        let (sent, why_not, failure) = match sent {
            Sent::Yes => (true, None, None),
            Sent::No(why) => (false, Some(why.clone()), None),
            Sent::Failed(error) => (false, None, Some(error.clone())),
        };
        Self {
            webhook: hook.name.clone(),
            round,
            sent,
            why_not,
            patch: Value::Null,
            failure,
        }
    }
}
