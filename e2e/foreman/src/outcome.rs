//! How an agent's task ends, in the shapes that Foreman's agent writes (F6, F21, F24).

use crate::condition;
use crate::keys;
use crate::types::{AgenticTask, AgenticTaskStatus};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// How an agent's task ends.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Outcome {
    /// `status.verdict`: GO, NO-GO, INCOMPLETE, GATE-PASS, GATE-FAIL, GATE-ERROR.
    pub verdict: String,
    /// `status.failureReason`; empty for none.
    pub failure_reason: String,
    /// `result.summary`, which is also the message of the condition.
    pub summary: String,
    /// `result.extra`.
    pub extra: Map<String, Value>,
    /// The reason of the condition if there is no result: the phase is Failed then, not Succeeded.
    pub error: Option<String>,
}

impl Outcome {
    /// A verdict, and nothing else to say.
    pub fn verdict(verdict: &str) -> Self {
        Self {
            verdict: verdict.to_owned(),
            ..Self::default()
        }
    }

    /// A coder is done, or a reviewer approves.
    pub fn go() -> Self {
        Self::verdict("GO")
    }

    /// The gate lets it pass.
    pub fn gate_pass() -> Self {
        Self::verdict("GATE-PASS")
    }

    /// The gate's checks fail.
    pub fn gate_fail() -> Self {
        Self::verdict("GATE-FAIL").with_reason("GateFailed")
    }

    /// A reviewer rejects, with a list of findings: `{severity, area, message, file, line, suggestion}` (F24).
    pub fn rejected(summary: &str, findings: &Value) -> Self {
        Self::verdict("NO-GO")
            .with_summary(summary)
            .with_extra("outcome", json!("MODEL-DECIDED"))
            .with_extra("modelExtra", json!({"findings": findings}))
    }

    /// A coder gives up, for a reason that `result.extra.outcome` tells: ALREADY-RESOLVED, NEEDS-VERIFICATION, …
    pub fn declined(outcome: &str, summary: &str) -> Self {
        Self::verdict("NO-GO")
            .with_summary(summary)
            .with_extra("outcome", json!(outcome))
    }

    /// A coder says that a human has to decide: DESIGN-DECISION or NO-TECHNICAL-FIX, among the model's own fields.
    pub fn declared(escalation: &str) -> Self {
        Self::declined("MODEL-DECIDED", "a human has to decide")
            .with_extra("modelExtra", json!({"escalation": escalation}))
    }

    /// No verdict before the end: MaxTurnsExhausted, CloneFailed, …
    pub fn incomplete(reason: &str) -> Self {
        Self::verdict("INCOMPLETE")
            .with_reason(reason)
            .with_extra("outcome", json!("LOOP-INCOMPLETE"))
    }

    /// The request did not reach a model: the phase is Failed (F21).
    pub fn executor_error(message: &str) -> Self {
        Self {
            error: Some("ExecutorError".to_owned()),
            ..Self::verdict("INCOMPLETE")
                .with_reason("InfrastructureError")
                .with_summary(message)
        }
    }

    /// A coder's Job that did not come to a verdict: Succeeded, NO-GO, and yet infrastructure (F21).
    pub fn job_error(summary: &str) -> Self {
        Self::declined("JOB-ERROR", summary).with_reason("InfrastructureError")
    }

    /// The node was lost for the third time: written by the operator (F20).
    pub fn claim_expired() -> Self {
        Self {
            error: Some("ClaimExpiryLimitReached".to_owned()),
            ..Self::verdict("INCOMPLETE").with_reason("InfrastructureError")
        }
    }

    /// With `status.failureReason`.
    #[must_use]
    pub fn with_reason(mut self, reason: &str) -> Self {
        reason.clone_into(&mut self.failure_reason);
        self
    }

    /// With a summary.
    #[must_use]
    pub fn with_summary(mut self, summary: &str) -> Self {
        summary.clone_into(&mut self.summary);
        self
    }

    /// With a field of `result.extra`.
    #[must_use]
    pub fn with_extra(mut self, key: &str, value: Value) -> Self {
        self.extra.insert(key.to_owned(), value);
        self
    }

    /// Whether the task's Job, if it has one, ends well: a verdict of any kind is a good end for a coder's.
    pub(crate) fn ends_job_well(&self, kind: &str) -> bool {
        match kind {
            "verify" => self.verdict == "GATE-PASS",
            _ => self.error.is_none() && self.extra.get("outcome").is_none_or(|outcome| outcome != "JOB-ERROR"),
        }
    }

    pub(crate) fn apply(&self, task: &AgenticTask, status: &mut AgenticTaskStatus) {
        status.finished_at = Some(condition::now());
        self.verdict.clone_into(&mut status.verdict);
        self.failure_reason.clone_into(&mut status.failure_reason);
        let conditions = &mut status.conditions;
        if let Some(reason) = &self.error {
            "Failed".clone_into(&mut status.phase);
            let (kind, holds) = match reason.as_str() {
                "ClaimExpiryLimitReached" => ("Failed", true),
                _ => ("Completed", false),
            };
            condition::set(conditions, kind, holds, reason, self.summary.clone());
            return;
        }
        "Succeeded".clone_into(&mut status.phase);
        condition::set(conditions, "Completed", true, "ExecutorSucceeded", self.summary.clone());
        let mut extra = self.extra.clone();
        if self.verdict == "GO" && task.spec.kind == "issue-fix" {
            task.spec.payload["branch"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut status.branch);
            status.commit_sha = task.metadata.uid.clone().unwrap_or_default().replace('-', "");
            extra.insert("branch".to_owned(), json!(status.branch));
            extra.insert("commitSHA".to_owned(), json!(status.commit_sha));
        }
        if !status.job_name.is_empty() {
            extra.insert("jobName".to_owned(), json!(status.job_name));
        }
        let began = status.started_at.as_ref().map(|started| started.0);
        let elapsed = began.map_or(0.0, |began| Timestamp::now().duration_since(began).as_secs_f64());
        let mut result = json!({
            "schemaVersion": "foreman.v1", "kind": "standin", "verdict": self.verdict, "summary": self.summary,
            "extra": extra, "elapsedSec": elapsed,
        });
        if !self.failure_reason.is_empty() {
            result["failureReason"] = json!(self.failure_reason);
        }
        status.result = Some(result);
    }

    /// What the agent writes instead when the API server refuses a verdict that the CRD does not know (F21).
    pub(crate) fn fallback(&self, status: &mut AgenticTaskStatus, refusal: &str) {
        "Failed".clone_into(&mut status.phase);
        "INCOMPLETE".clone_into(&mut status.verdict);
        "InfrastructureError".clone_into(&mut status.failure_reason);
        status.finished_at = Some(condition::now());
        status.result = Some(json!({"schemaVersion": "foreman.v1", "verdict": self.verdict, "summary": self.summary}));
        let told = format!("verdict {:?}: {refusal}", self.verdict);
        condition::set(
            &mut status.conditions,
            "Completed",
            false,
            "TerminalPatchRejected",
            told,
        );
    }

    /// Annotations that come with it.
    pub(crate) fn annotations(&self) -> Option<Value> {
        let expired = self.error.as_deref() == Some("ClaimExpiryLimitReached");
        expired.then(|| json!({keys::CLAIM_EXPIRIES: "2"}))
    }
}
