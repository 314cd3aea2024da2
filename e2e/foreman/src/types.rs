//! Foreman's objects, as far as the stand-in looks at them. Writes are merge patches of what changed, as Foreman's own,
//! so that fields unknown here survive.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A name in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the name is Foreman's own")]
pub struct NameRef {
    pub name: String,
}

/// What shall be done: issues or a pipeline.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "foreman.llmkube.dev",
    version = "v1alpha1",
    kind = "Workload",
    namespaced,
    status = "WorkloadStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Foreman's own")]
pub struct WorkloadSpec {
    pub intent: String,
    pub repo: String,
    pub max_tasks: usize,
    pub planner_model: String,
    pub issues: Vec<i32>,
    pub pipeline: Vec<Step>,
    pub coder_agent_ref: Option<NameRef>,
    pub verifier_agent_ref: Option<NameRef>,
    pub revision_coder_agent_ref: Option<NameRef>,
    pub reviewer_agent_refs: Vec<NameRef>,
    pub open_pull_request: Option<bool>,
    pub allow_overwrite: bool,
    pub max_review_iterations: Option<usize>,
    pub gate_profile: Option<Value>,
    pub mcp_enabled: Option<bool>,
    pub verdict_policy: Option<Value>,
}

/// One step of a pipeline; becomes one AgenticTask.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Foreman's own")]
pub struct Step {
    pub name: String,
    pub kind: String,
    pub agent_ref: NameRef,
    pub payload: Value,
    pub depends_on: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_profile: Option<Value>,
}

/// What became of a Workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Foreman's own")]
pub struct WorkloadStatus {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub planner_model: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeeded_tasks: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_tasks: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete_tasks: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review_iterations: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl Workload {
    /// The status, or an empty one before the first write.
    pub fn current(&self) -> WorkloadStatus {
        self.status.clone().unwrap_or_default()
    }

    /// The phase; empty before the first write.
    pub fn phase(&self) -> &str {
        self.status.as_ref().map_or("", |status| status.phase.as_str())
    }

    /// A condition, as status, reason and message.
    pub fn condition(&self, kind: &str) -> Option<(&str, &str, &str)> {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        find(conditions, kind)
    }
}

/// One task of one agent.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "foreman.llmkube.dev",
    version = "v1alpha1",
    kind = "AgenticTask",
    namespaced,
    status = "AgenticTaskStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Foreman's own")]
pub struct AgenticTaskSpec {
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_ref: Option<NameRef>,
    pub payload: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_profile: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict_policy: Option<Value>,
}

/// What became of an AgenticTask.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Foreman's own")]
pub struct AgenticTaskStatus {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub failure_reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub assigned_node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub branch: String,
    #[serde(rename = "commitSHA", skip_serializing_if = "String::is_empty")]
    pub commit_sha: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl AgenticTask {
    /// The status, or an empty one before the first write.
    pub fn current(&self) -> AgenticTaskStatus {
        self.status.clone().unwrap_or_default()
    }

    /// The phase; empty before the first write.
    pub fn phase(&self) -> &str {
        self.status.as_ref().map_or("", |status| status.phase.as_str())
    }

    /// The verdict; empty before the end.
    pub fn verdict(&self) -> &str {
        self.status.as_ref().map_or("", |status| status.verdict.as_str())
    }

    /// Whether it has ended, in whatever way.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Whether it has ended with something that others can build on.
    pub fn is_on_target(&self) -> bool {
        self.phase() == "Succeeded" && matches!(self.verdict(), "GO" | "GATE-PASS")
    }

    /// The step that it is, by its label.
    pub fn step(&self) -> &str {
        let labels = self.metadata.labels.as_ref();
        labels
            .and_then(|labels| labels.get(crate::keys::STEP))
            .map_or("", String::as_str)
    }

    /// `result.extra.outcome`.
    pub fn outcome(&self) -> &str {
        let result = self.status.as_ref().and_then(|status| status.result.as_ref());
        let outcome = result.and_then(|result| result.pointer("/extra/outcome"));
        outcome.and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether its coder found nothing left to do.
    pub fn is_already_resolved(&self) -> bool {
        self.verdict() == "NO-GO" && self.outcome() == "ALREADY-RESOLVED"
    }

    /// A condition, as status, reason and message.
    pub fn condition(&self, kind: &str) -> Option<(&str, &str, &str)> {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        find(conditions, kind)
    }
}

fn find<'a>(mut conditions: impl Iterator<Item = &'a Condition>, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = conditions.find(|condition| condition.type_ == kind)?;
    Some((&found.status, &found.reason, &found.message))
}

/// Who does the work.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "foreman.llmkube.dev",
    version = "v1alpha1",
    kind = "Agent",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Foreman's own")]
pub struct AgentSpec {
    pub role: String,
    pub tools: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_tasks: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
}

/// Where an agent works.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Foreman's own")]
pub struct Execution {
    pub mode: String,
    pub image: String,
    pub active_deadline_seconds: Option<i64>,
}

impl Agent {
    /// Whether its tasks run as Jobs.
    pub fn runs_jobs(&self) -> bool {
        self.spec
            .execution
            .as_ref()
            .is_some_and(|execution| execution.mode == "Job")
    }
}
