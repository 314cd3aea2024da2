//! What taskgate knows of a Kelos Task. Source: kelos-dev/kelos at 77d9ad8 (2026-08-22), both served versions.

use jiff::Timestamp;
use serde_json::Value;

use crate::{Lenient as _, metadata::Owner, view::view};

/// Kelos' API group.
pub const GROUP: &str = "kelos.dev";
/// The versions of a Task that Kelos serves, newest first. v1alpha1 knows only the flat agent fields.
pub const TASK_VERSIONS: [&str; 2] = ["v1alpha2", "v1alpha1"];
/// Plural of Task.
pub const TASKS: &str = "tasks";

/// Label on a Task: the spawner that made it. Spawner runs (Jobs of its `CronJob`) carry it as well (kelos §4).
pub const SPAWNER_LABEL: &str = "kelos.dev/taskspawner";
/// Label on a Job and its pods: the Task it runs for. A label value, so it ends at 63 characters.
pub const TASK_LABEL: &str = "kelos.dev/task";
/// The phase of a Task whose agent did its work.
pub const SUCCEEDED: &str = "Succeeded";
/// The phase of a Task that failed.
pub const FAILED: &str = "Failed";
/// The phase of a Task that waits for its branch, a dependency or a budget.
pub const WAITING: &str = "Waiting";
/// The phase of a cancelled Task, for a Kelos that has adopted proposal 001. To any other it is nothing (kelos §6.2).
pub const CANCELLED: &str = "Cancelled";
/// Annotation on a runner pod: the Task that it works on (kelos §7).
pub const ASSIGNED_TASK: &str = "kelos.dev/assigned-task";
/// Annotation on a runner pod: the Task that it is to stop (kelos §7).
pub const CANCEL_TASK: &str = "kelos.dev/cancel-task";
/// Kelos' own finalizer on a Task.
pub const FINALIZER: &str = "kelos.dev/finalizer";

/// Annotation: `issue` or `pull-request`. Stamped by polling GitHub sources always, by webhook sources when reporting.
pub const SOURCE_KIND: &str = "kelos.dev/source-kind";
/// Annotation: the number of the issue or pull request.
pub const SOURCE_NUMBER: &str = "kelos.dev/source-number";
/// Annotation: the repository's owner. Only on Tasks of webhook sources (kelos §3).
pub const SOURCE_OWNER: &str = "kelos.dev/source-owner";
/// Annotation: the repository's name. Only on Tasks of webhook sources (kelos §3).
pub const SOURCE_REPO: &str = "kelos.dev/source-repo";

/// Annotation: the commit that the Task works on, where the source stamps it (kelos §3).
pub const SOURCE_SHA: &str = "kelos.dev/source-sha";

/// The longest Task name whose Job the API server accepts: the name becomes a label value.
pub const MAX_TASK_NAME: usize = 63;

view! {
    /// Borrowed view of a Kelos Task.
    Task
}

impl<'a> Task<'a> {
    /// The whole `spec`.
    pub fn spec(self) -> Option<&'a Value> {
        self.0.get("spec")
    }

    /// A field of `spec`, such as `image`. One of the agent lives in `spec.worker` or, deprecated, flat in `spec`; the worker
    /// wins as in Kelos.
    pub fn agent_field(self, field: &str) -> Option<&'a Value> {
        let spec = self.spec()?;
        let set = |value: &&Value| !value.is_null() && value.as_str() != Some("");
        spec.get("worker")
            .and_then(|worker| worker.get(field))
            .filter(set)
            .or_else(|| spec.get(field).filter(set))
    }

    /// The agent type, such as `claude-code`.
    pub fn agent_type(self) -> Option<&'a str> {
        self.agent_field("type")?.as_str()
    }

    /// The model that the agent is to use.
    pub fn model(self) -> Option<&'a str> {
        self.agent_field("model")?.as_str()
    }

    /// The name of the Workspace.
    pub fn workspace(self) -> Option<&'a str> {
        self.agent_field("workspaceRef")?.text("/name")
    }

    /// The names of the AgentConfigs that the agent starts with.
    pub fn agent_configs(self) -> impl Iterator<Item = &'a str> {
        let listed = self.agent_field("agentConfigRefs").into_iter();
        listed
            .flat_map(|listed| listed.items(""))
            .filter_map(|reference| reference.text("/name"))
    }

    /// The branch that the agent works on, which Kelos locks (kelos §6.5).
    pub fn branch(self) -> Option<&'a str> {
        self.0.text("/spec/branch")
    }

    /// The worker pool that is to run the Task, without a Job (kelos §7).
    pub fn worker_pool(self) -> Option<&'a str> {
        self.0.text("/spec/workerPoolRef/name")
    }

    /// `spec.ttlSecondsAfterFinished`, in seconds.
    pub fn ttl_seconds(self) -> Option<i64> {
        self.spec()?.get("ttlSecondsAfterFinished")?.as_i64()
    }

    /// `status.phase`; empty before Kelos' first write. Not an enum: it may be any text (kelos §2.2).
    pub fn phase(self) -> &'a str {
        self.0.text("/status/phase").unwrap_or_default()
    }

    /// `status.jobName`, which Kelos writes right after it created the Job.
    pub fn job_name(self) -> Option<&'a str> {
        self.0.text("/status/jobName")
    }

    /// `status.podName`: the newest pod, or the runner that the Task is assigned to.
    pub fn pod_name(self) -> Option<&'a str> {
        self.0.text("/status/podName")
    }

    /// `status.cancelledBy`, which only a Kelos that has adopted proposal 001 keeps.
    pub fn cancelled_by(self) -> Option<&'a str> {
        self.0.text("/status/cancelledBy")
    }

    /// Whether the Task was cancelled in the words of proposal 001. The phase alone is none: to a Kelos without it, such a
    /// Task goes on.
    pub fn is_cancelled(self) -> bool {
        self.phase() == CANCELLED && self.cancelled_by().is_some()
    }

    /// Whether the Task has ended. Only these two phases are final to Kelos (kelos §6.2).
    pub fn is_terminal(self) -> bool {
        matches!(self.phase(), SUCCEEDED | FAILED)
    }

    /// A moment in `status`, such as `startTime` or `completionTime`; garbage reads as absent.
    pub fn status_time(self, field: &str) -> Option<Timestamp> {
        self.0.time(&format!("/status/{field}"))
    }

    /// `status.message`.
    pub fn message(self) -> &'a str {
        self.0.text("/status/message").unwrap_or_default()
    }

    /// A field of `status.usage`, such as `costUSD`.
    pub fn usage(self, field: &str) -> Option<&'a Value> {
        self.0.pointer("/status/usage")?.get(field)
    }

    /// Since when the Task is being deleted.
    pub fn deleting_since(self) -> Option<Timestamp> {
        self.0.time("/metadata/deletionTimestamp")
    }

    /// The positive number of the issue or pull request that the source stamped on the Task.
    pub fn source_number(self) -> Option<u64> {
        let number = self.metadata().annotation(SOURCE_NUMBER)?.trim().parse().ok();
        number.filter(|number| *number > 0)
    }

    /// The owner and the name of the repository that the source stamped on the Task.
    pub fn source_repository(self) -> Option<(&'a str, &'a str)> {
        let metadata = self.metadata();
        metadata.annotation(SOURCE_OWNER).zip(metadata.annotation(SOURCE_REPO))
    }

    /// The spawner that owns the Task by controller reference.
    pub fn spawner_owner(self) -> Option<Owner<'a>> {
        self.metadata()
            .controller()
            .filter(|owner| owner.is(GROUP, "TaskSpawner"))
    }

    /// The name of the Task's spawner: the controlling owner, else, when no controller is set, the label (tb:265-279).
    pub fn spawner(self) -> Option<&'a str> {
        match self.metadata().controller() {
            Some(owner) => owner.is(GROUP, "TaskSpawner").then_some(owner.name),
            None => self.metadata().label(SPAWNER_LABEL).filter(|name| !name.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_worker_shape_wins_over_the_flat_one() {
        let task = json!({"spec": {"type": "codex", "model": "flat", "worker": {"type": "claude-code", "model": ""}}});
        assert_eq!(Task::of(&task).agent_type(), Some("claude-code"));
        assert_eq!(Task::of(&task).model(), Some("flat"));
    }

    #[test]
    fn a_foreign_controller_hides_the_spawner_label() {
        let labelled = json!({"metadata": {"labels": {SPAWNER_LABEL: "fixer"}}});
        assert_eq!(Task::of(&labelled).spawner(), Some("fixer"));
        let owned = json!({"metadata": {"labels": {SPAWNER_LABEL: "fixer"}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": "u", "controller": true}]}});
        assert_eq!(Task::of(&owned).spawner(), None);
    }
}
