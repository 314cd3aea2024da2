//! The cause of a Task's end: success, the agent, or the cluster. Kelos does not copy it to the Task, so the Job and its pods are
//! read while they exist.

use serde_json::Value;
use taskgate_api::{
    Lenient as _,
    condition::Condition,
    job::Job,
    kelos::Task,
    keys,
    metadata::Metadata,
    task_policy::{FailurePolicy, InfrastructureFailure},
    work_item::Outcome,
};

use super::{TaskPhase, TaskState};
use crate::{cancellation::TASK_CANCELLED, kubernetes::one_word};

/// The reason of the condition with which taskgate fails Jobs of Tasks that an open breaker does not allow.
pub const CIRCUIT_BROKEN: &str = "CircuitBroken";

/// How a Task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What it counts as.
    pub outcome: Outcome,
    /// Why, in one CamelCase word.
    pub reason: String,
}

impl Ending {
    fn new(outcome: Outcome, reason: &str) -> Self {
        Self {
            outcome,
            reason: one_word(reason),
        }
    }
}

/// The Job and the pods of a Task, found by name and label. Only those that the Task owns count: any user who may create pods can
/// give them Kelos' labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunObjects<'a> {
    /// The Job of the Task's name.
    pub job: Option<&'a Value>,
    /// The pods with the Task's label.
    pub pods: &'a [Value],
}

impl<'a> RunObjects<'a> {
    /// Without a Job that belongs to another Task, or to none.
    fn of_task(self, state: &TaskState) -> Self {
        let ours = |job: &&Value| Job::of(job).task().is_some_and(|owner| owner.uid == state.uid);
        Self {
            job: self.job.filter(ours),
            ..self
        }
    }

    /// The pod of the Job's last try: it decided the Job's end.
    fn newest_pod(self) -> Option<&'a Value> {
        let job = Metadata::of(self.job?).uid()?;
        let ours = |pod: &&Value| Metadata::of(pod).controller().is_some_and(|owner| owner.uid == job);
        let created = |pod: &&'a Value| pod.text("/metadata/creationTimestamp");
        self.pods.iter().filter(ours).max_by_key(created)
    }
}

/// How the Task `object` ended, by its Job and pods. A failure without a cause in the cluster is the agent's.
pub fn classify(object: &Value, state: &TaskState, objects: RunObjects<'_>, policy: Option<&FailurePolicy>) -> Ending {
    match state.phase {
        TaskPhase::Active => return Ending::new(Outcome::Deleted, "Deleted"),
        TaskPhase::Succeeded => return Ending::new(Outcome::Succeeded, "Succeeded"),
        TaskPhase::Failed if state.cancelled => return Ending::new(Outcome::Cancelled, TASK_CANCELLED),
        // A worker pool's Task has no Job with a reason.
        TaskPhase::Failed if is_stopped_in_pool(object) => return Ending::new(Outcome::Stopped, CIRCUIT_BROKEN),
        TaskPhase::Failed => {}
    }
    let objects = objects.of_task(state);
    let failed = objects.job.and_then(failed_reason);
    match failed {
        Some(CIRCUIT_BROKEN) => return Ending::new(Outcome::Stopped, CIRCUIT_BROKEN),
        Some(TASK_CANCELLED) => return Ending::new(Outcome::Cancelled, TASK_CANCELLED),
        _ => {}
    }
    let unstarted = failed == Some("DeadlineExceeded") && !state.started;
    let blamed = if unstarted {
        Some(InfrastructureFailure::QueueDeadline)
    } else {
        objects.newest_pod().and_then(blame)
    };
    if let Some(failure) = blamed {
        let outcome = match policy {
            Some(policy) if !policy.ignores(failure) => Outcome::Failed,
            _ => Outcome::Infrastructure,
        };
        return Ending::new(outcome, &format!("{failure:?}"));
    }
    Ending::new(Outcome::Failed, failed.unwrap_or_else(|| without_job(object)))
}

/// Whether taskgate stopped the Task, which a worker pool runs.
fn is_stopped_in_pool(object: &Value) -> bool {
    Task::of(object).worker_pool().is_some() && Metadata::of(object).annotation(keys::STOPPED).is_some()
}

/// The reason of a Job's `Failed` condition, or, until the job controller gets there, of its `FailureTarget`.
fn failed_reason(job: &Value) -> Option<&str> {
    let reason = |kind: &str| {
        let mut met = Condition::all(job).filter(|condition| condition.kind() == kind && condition.is_true());
        met.next().map(Condition::reason).filter(|reason| !reason.is_empty())
    };
    reason("Failed").or_else(|| reason("FailureTarget"))
}

/// Whether [`classify`] depends on the Job and its pods: the Task failed, was not cancelled, and had a Job (kelos §6.2).
pub fn depends_on_job(object: &Value, state: &TaskState) -> bool {
    let had_job = Task::of(object).worker_pool().is_none() && without_job(object) == "TaskFailed";
    state.phase == TaskPhase::Failed && !state.cancelled && had_job
}

/// The cause of a failure before the Task had a Job: Kelos states it only in the message.
fn without_job(object: &Value) -> &'static str {
    let message = Task::of(object).message();
    if message.starts_with("Dependency ") || message.starts_with("Circular dependency") {
        "DependencyFailed"
    } else if message.starts_with("Failed to ") {
        "JobNotCreated"
    } else {
        "TaskFailed"
    }
}

/// The cause in the cluster that ended a pod, if there is one.
fn blame(pod: &Value) -> Option<InfrastructureFailure> {
    use InfrastructureFailure::{Evicted, ImagePull, NodeLost, Preempted};
    match pod.text("/status/reason") {
        Some("Evicted") => return Some(Evicted),
        Some("Preempting" | "Preempted") => return Some(Preempted),
        Some("NodeLost" | "NodeShutdown" | "NodeAffinity" | "Shutdown" | "Terminated") => return Some(NodeLost),
        _ => {}
    }
    let disrupted = Condition::all(pod).find(|condition| condition.kind() == "DisruptionTarget" && condition.is_true());
    match disrupted.map(Condition::reason) {
        Some("PreemptionByScheduler" | "PreemptionByKueue") => return Some(Preempted),
        Some("EvictionByEvictionAPI" | "TerminationByKubelet") => return Some(Evicted),
        Some(_) => return Some(NodeLost),
        None => {}
    }
    let init = pod.items("/status/initContainerStatuses");
    let mut statuses = init.chain(pod.items("/status/containerStatuses"));
    let is_unpulled = |status: &Value| {
        matches!(
            status.text("/state/waiting/reason"),
            Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull")
        )
    };
    statuses.any(is_unpulled).then_some(ImagePull)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn end(task: &Value, job: &Value, pods: &[Value], policy: Option<&FailurePolicy>) -> (Outcome, String) {
        let mut task = task.clone();
        task["metadata"] = json!({"name": "fixer-42", "uid": "u"});
        let state = TaskState::of(&task).unwrap();
        let objects = RunObjects {
            job: (!job.is_null()).then_some(job),
            pods,
        };
        let ending = classify(&task, &state, objects, policy);
        (ending.outcome, ending.reason)
    }

    fn owned_by(kind: &str, uid: &str) -> Value {
        let version = if kind == "Task" {
            "kelos.dev/v1alpha2"
        } else {
            "batch/v1"
        };
        let owner = json!({"apiVersion": version, "kind": kind, "name": "fixer-42", "uid": uid, "controller": true});
        json!({"uid": "j", "ownerReferences": [owner]})
    }

    fn job(reason: &str) -> Value {
        json!({"metadata": owned_by("Task", "u"), "status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason}]}})
    }

    #[test]
    fn the_job_matters_only_where_the_task_had_one_and_was_not_cancelled() {
        let depends = |task: Value| {
            let task = json!({"metadata": {"name": "t", "uid": "u"}, "spec": task["spec"], "status": task["status"]});
            depends_on_job(&task, &TaskState::of(&task).unwrap())
        };
        assert!(depends(
            json!({"status": {"phase": "Failed", "message": "Task failed"}})
        ));
        assert!(depends(json!({"status": {"phase": "Failed"}})));
        for other in [
            json!({"status": {"phase": "Succeeded"}}),
            json!({"status": {"phase": "Running"}}),
            json!({"status": {"phase": "Cancelled"}}),
            json!({"status": {"phase": "Failed", "message": "Failed to create the Job: no"}}),
            json!({"status": {"phase": "Failed", "message": "Dependency \"x\" failed"}}),
            json!({"spec": {"workerPoolRef": {"name": "p"}}, "status": {"phase": "Failed"}}),
        ] {
            assert!(!depends(other.clone()), "{other}");
        }
    }

    #[test]
    fn the_cluster_is_blamed_only_on_evidence() {
        let ran = json!({"status": {"phase": "Failed", "startTime": "2026-11-21T00:00:00Z"}});
        let queued = json!({"status": {"phase": "Failed"}});
        let pod = |status: Value| vec![json!({"metadata": owned_by("Job", "j"), "status": status})];
        let none: Vec<Value> = Vec::new();
        let disrupted = |reason: &str| {
            pod(json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]}))
        };
        let waiting = pod(json!({"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}));
        for (case, task, job, pods, outcome, reason) in [
            (
                "agent failed",
                &ran,
                job("BackoffLimitExceeded"),
                &none,
                Outcome::Failed,
                "BackoffLimitExceeded",
            ),
            (
                "deadline while it ran",
                &ran,
                job("DeadlineExceeded"),
                &none,
                Outcome::Failed,
                "DeadlineExceeded",
            ),
            (
                "deadline in the queue",
                &queued,
                job("DeadlineExceeded"),
                &none,
                Outcome::Infrastructure,
                "QueueDeadline",
            ),
            (
                "cancelled",
                &ran,
                job("TaskCancelled"),
                &none,
                Outcome::Cancelled,
                "TaskCancelled",
            ),
            (
                "stopped",
                &queued,
                job("CircuitBroken"),
                &none,
                Outcome::Stopped,
                "CircuitBroken",
            ),
            ("job gone", &ran, Value::Null, &none, Outcome::Failed, "TaskFailed"),
            (
                "evicted",
                &ran,
                job("BackoffLimitExceeded"),
                &pod(json!({"reason": "Evicted"})),
                Outcome::Infrastructure,
                "Evicted",
            ),
            (
                "preempted",
                &ran,
                job("BackoffLimitExceeded"),
                &disrupted("PreemptionByScheduler"),
                Outcome::Infrastructure,
                "Preempted",
            ),
            (
                "node gone",
                &ran,
                job("BackoffLimitExceeded"),
                &disrupted("DeletionByTaintManager"),
                Outcome::Infrastructure,
                "NodeLost",
            ),
            (
                "no image",
                &ran,
                job("DeadlineExceeded"),
                &waiting,
                Outcome::Infrastructure,
                "ImagePull",
            ),
            (
                "garbage",
                &ran,
                json!({"status": {"conditions": "x"}}),
                &vec![json!(7)],
                Outcome::Failed,
                "TaskFailed",
            ),
        ] {
            assert_eq!(end(task, &job, pods, None), (outcome, reason.to_owned()), "{case}");
        }
    }

    #[test]
    fn what_the_policy_does_not_ignore_counts() {
        let task = json!({"status": {"phase": "Failed", "startTime": "2026-11-21T00:00:00Z"}});
        let policy: FailurePolicy = serde_json::from_value(json!({"ignore": ["Preempted"]})).unwrap();
        let pods = [json!({"metadata": owned_by("Job", "j"), "status": {"reason": "Evicted"}})];
        let ending = end(&task, &job("BackoffLimitExceeded"), &pods, Some(&policy));
        assert_eq!(ending, (Outcome::Failed, "Evicted".to_owned()));
    }

    #[test]
    fn only_what_the_task_owns_is_evidence() {
        let task = json!({"status": {"phase": "Failed", "startTime": "2026-11-21T00:00:00Z"}});
        let evicted = |metadata: Value| json!({"metadata": metadata, "status": {"reason": "Evicted"}});
        let failed = |reason: &str| (Outcome::Failed, reason.to_owned());
        let stranger = json!({"labels": {"kelos.dev/task": "fixer-42"}, "creationTimestamp": "2026-12-01T00:00:00Z"});
        for pod in [stranger, owned_by("Job", "another"), owned_by("Task", "u")] {
            let ending = end(&task, &job("BackoffLimitExceeded"), &[evicted(pod.clone())], None);
            assert_eq!(ending, failed("BackoffLimitExceeded"), "{pod}");
        }
        let mut foreign = job("TaskCancelled");
        for metadata in [owned_by("Task", "another"), json!({"uid": "j"})] {
            foreign["metadata"] = metadata;
            let ending = end(&task, &foreign, &[evicted(owned_by("Job", "j"))], None);
            assert_eq!(ending, failed("TaskFailed"), "{foreign}");
        }
    }

    #[test]
    fn a_stopped_task_of_a_pool_has_an_annotation() {
        let mut task = json!({"spec": {"workerPoolRef": {"name": "pool"}}, "status": {"phase": "Failed"}});
        let state = |task: &Value| TaskState::of(task).unwrap();
        task["metadata"] = json!({"name": "t", "uid": "u"});
        let ending = classify(&task, &state(&task), RunObjects::default(), None);
        assert_eq!(ending.outcome, Outcome::Failed);
        task["metadata"]["annotations"] = json!({keys::STOPPED: "open"});
        let ending = classify(&task, &state(&task), RunObjects::default(), None);
        assert_eq!(
            (ending.outcome, ending.reason.as_str()),
            (Outcome::Stopped, CIRCUIT_BROKEN)
        );
        task["spec"] = json!({});
        assert_eq!(
            classify(&task, &state(&task), RunObjects::default(), None).outcome,
            Outcome::Failed
        );
    }

    #[test]
    fn a_failure_before_the_job_has_its_own_reason() {
        for (message, reason) in [
            ("Dependency \"x\" failed", "DependencyFailed"),
            ("Failed to build job: bad", "JobNotCreated"),
            ("Task failed", "TaskFailed"),
        ] {
            let task = json!({"status": {"phase": "Failed", "message": message}});
            assert_eq!(end(&task, &Value::Null, &[], None).1, reason, "{message}");
        }
    }
}
