//! Views of Foreman's objects (defilantech/LLMKube at 907ac8d, foreman §2), and the keys that the dispatch bridge writes
//! (foreman §1.3).
//!
//! Kueue has a kind called `Workload` too, in another group.

use jiff::Timestamp;
use serde_json::Value;

use crate::{Lenient as _, view::view};

/// Foreman's API group.
pub const GROUP: &str = "foreman.llmkube.dev";
/// The versions of Foreman's kinds that are understood.
pub const VERSIONS: [&str; 1] = ["v1alpha1"];
/// Plural of Workload.
pub const WORKLOADS: &str = "workloads";
/// Plural of AgenticTask.
pub const AGENTIC_TASKS: &str = "agentictasks";

/// Label on an AgenticTask: its Workload, by name. Foreman finds children by it alone, never by owner (foreman §2.3).
pub const WORKLOAD_LABEL: &str = "foreman.llmkube.dev/workload";
/// Label on a Job and its pods: the AgenticTask that it runs.
pub const TASK_NAME_LABEL: &str = "foreman.llmkube.dev/task-name";
/// Label on a Job and its pods: the namespace of that AgenticTask; Jobs run elsewhere (foreman §2.4).
pub const TASK_NAMESPACE_LABEL: &str = "foreman.llmkube.dev/task-namespace";

/// The prefix of the annotations below, as the dispatch bridge writes them.
pub const ANNOTATION_PREFIX: &str = "foreman.llmkube.dev/";
/// Annotation, behind the prefix: which run this is; the first is 1.
pub const ATTEMPT: &str = "attempt";
/// Annotation, behind the prefix: the issue, as its source names it.
pub const ISSUE_ID: &str = "issue-id";
/// Annotation, behind the prefix: the agent that works on it.
pub const AGENT_NAME: &str = "agent-name";

/// Label on a Workload: its creator.
pub const CREATED_BY: &str = "created-by";
/// The prefix of [`CREATED_BY`] on objects that the dispatch bridge created and reconciles (foreman §1.3).
pub const BRIDGE: &str = "dispatch-bridge";

view! {
    /// Borrowed view of a Workload. Foreman rewrites the transition times of its conditions at each reconcile (foreman §2.2).
    Workload
}

impl<'a> Workload<'a> {
    /// `status.phase`; empty before Foreman's first reconcile.
    pub fn phase(self) -> &'a str {
        self.0.text("/status/phase").unwrap_or_default()
    }

    /// `spec.repo`, such as `acme/app`.
    pub fn repo(self) -> &'a str {
        self.0.text("/spec/repo").unwrap_or_default().trim()
    }

    /// `spec.issues`: the positive numbers; other entries are ignored.
    pub fn issues(self) -> impl Iterator<Item = u64> {
        let numbers = self.0.items("/spec/issues").filter_map(Value::as_u64);
        numbers.filter(|number| *number > 0)
    }

    /// The steps of an explicit pipeline.
    pub fn pipeline(self) -> impl Iterator<Item = &'a Value> {
        self.0.items("/spec/pipeline")
    }

    /// The agent that writes code: the Workload's own, else that of the first step that fixes an issue.
    pub fn coder(self) -> Option<&'a str> {
        self.0.text("/spec/coderAgentRef/name").or_else(|| {
            let fix = self.pipeline().find(|step| step["kind"] == "issue-fix")?;
            fix.text("/agentRef/name")
        })
    }
}

view! {
    /// Borrowed view of an AgenticTask, the child of a Workload.
    AgenticTask
}

impl<'a> AgenticTask<'a> {
    /// `spec.kind`, such as `issue-fix`.
    pub fn kind(self) -> &'a str {
        self.0.text("/spec/kind").unwrap_or_default()
    }

    /// `status.phase`.
    pub fn phase(self) -> &'a str {
        self.0.text("/status/phase").unwrap_or_default()
    }

    /// `status.verdict`, such as `NO-GO`.
    pub fn verdict(self) -> &'a str {
        self.0.text("/status/verdict").unwrap_or_default()
    }

    /// `status.failureReason`, such as `CloneFailed`.
    pub fn failure_reason(self) -> &'a str {
        self.0.text("/status/failureReason").unwrap_or_default()
    }

    /// `status.result.summary`.
    pub fn summary(self) -> &'a str {
        self.0.text("/status/result/summary").unwrap_or_default()
    }

    /// A field of `status.result.extra`, which no schema describes.
    pub fn extra(self, field: &str) -> Option<&'a Value> {
        self.0.pointer("/status/result/extra")?.get(field)
    }

    /// `status.result.extra.outcome`, such as `JOB-ERROR`.
    pub fn outcome(self) -> &'a str {
        self.0.text("/status/result/extra/outcome").unwrap_or_default()
    }

    /// A field of the model's own output.
    pub fn model_extra(self, field: &str) -> Option<&'a Value> {
        self.extra("modelExtra")?.get(field)
    }

    /// A moment in `status`, such as `startedAt`.
    pub fn status_time(self, field: &str) -> Option<Timestamp> {
        self.0.time(&format!("/status/{field}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wrong_types_read_as_absent() {
        for object in [
            json!(null),
            json!({"spec": {"issues": {}, "pipeline": 7, "repo": 1, "coderAgentRef": "x"}, "status": []}),
            json!({"spec": {"issues": ["7", -1, 0, 1.5, null], "pipeline": [null, {"kind": "issue-fix"}]}}),
        ] {
            let workload = Workload::of(&object);
            assert_eq!((workload.phase(), workload.repo()), ("", ""), "{object}");
            assert_eq!((workload.issues().count(), workload.coder()), (0, None), "{object}");
            let child = AgenticTask::of(&object);
            assert_eq!(
                (child.kind(), child.verdict(), child.outcome()),
                ("", "", ""),
                "{object}"
            );
        }
    }

    #[test]
    fn the_coder_is_the_workloads_or_the_pipelines() {
        let own = json!({"spec": {"coderAgentRef": {"name": "a"}, "pipeline": [{"kind": "issue-fix", "agentRef": {"name": "b"}}]}});
        assert_eq!(Workload::of(&own).coder(), Some("a"));
        let steps = json!({"spec": {"pipeline": [{"kind": "verify", "agentRef": {"name": "v"}}, {"kind": "issue-fix", "agentRef": {"name": "b"}}]}});
        assert_eq!(Workload::of(&steps).coder(), Some("b"));
    }
}
