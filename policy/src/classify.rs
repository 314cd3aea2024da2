//! Whose fault the end of a Task was: the agent's or the cluster's. Kelos copies nothing of it to the Task (kelos T5), so
//! the Job and its pods are looked at while they exist.

use serde_json::Value;
use taskgate_api::{
    kelos::Task,
    task_policy::{FailurePolicy, InfrastructureFailure},
    work_item::Outcome,
};

use crate::{TaskPhase, TaskState};

/// The reason with which taskgate fails Jobs of Tasks that slipped past an open breaker.
pub const CIRCUIT_BROKEN: &str = "CircuitBroken";
/// The reason with which Jobs are failed that somebody cancelled (seed 001).
pub const TASK_CANCELLED: &str = "TaskCancelled";

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
            reason: word(reason),
        }
    }
}

/// What is left of a Task's run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// Its Job.
    pub job: Option<&'a Value>,
    /// The Job's pods.
    pub pods: &'a [Value],
}

/// How the Task `object` ended, by what is left of its run. A failure that cannot be blamed on the cluster is the agent's.
pub fn classify(object: &Value, state: &TaskState, evidence: Evidence<'_>, policy: Option<&FailurePolicy>) -> Ending {
    match state.phase {
        TaskPhase::Active => return Ending::new(Outcome::Deleted, "Deleted"),
        TaskPhase::Succeeded => return Ending::new(Outcome::Succeeded, "Succeeded"),
        TaskPhase::Failed if state.cancelled => return Ending::new(Outcome::Cancelled, TASK_CANCELLED),
        TaskPhase::Failed => {}
    }
    let failed = evidence.job.and_then(failed_reason);
    match failed {
        Some(CIRCUIT_BROKEN) => return Ending::new(Outcome::Stopped, CIRCUIT_BROKEN),
        Some(TASK_CANCELLED) => return Ending::new(Outcome::Cancelled, TASK_CANCELLED),
        _ => {}
    }
    let unstarted = failed == Some("DeadlineExceeded") && !state.started;
    let blamed = if unstarted {
        Some(InfrastructureFailure::QueueDeadline)
    } else {
        newest(evidence.pods).and_then(blame)
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

/// The reason of a Job's `Failed` condition, or, until the job controller gets there, of its `FailureTarget`.
fn failed_reason(job: &Value) -> Option<&str> {
    let conditions = job.pointer("/status/conditions")?.as_array()?;
    let reason = |kind: &str| {
        conditions
            .iter()
            .find(|condition| condition["type"] == kind && condition["status"] == "True")
            .and_then(|condition| condition.get("reason")?.as_str())
    };
    reason("Failed").or_else(|| reason("FailureTarget"))
}

/// Kelos tells only in prose why a Task failed before it had a Job (kelos §6.2).
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

/// The pod of the last try: it decided the Job's end.
fn newest(pods: &[Value]) -> Option<&Value> {
    let created = |pod: &Value| {
        pod.pointer("/metadata/creationTimestamp")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned)
    };
    pods.iter().max_by_key(|pod| created(pod))
}

/// What the cluster did to a pod, if it did.
fn blame(pod: &Value) -> Option<InfrastructureFailure> {
    use InfrastructureFailure::{Evicted, ImagePull, NodeLost, Preempted};
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match text(&pod["status"]["reason"]).as_str() {
        "Evicted" => return Some(Evicted),
        "Preempting" | "Preempted" => return Some(Preempted),
        "NodeLost" | "NodeShutdown" | "NodeAffinity" | "Shutdown" | "Terminated" => return Some(NodeLost),
        _ => {}
    }
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let disrupted = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "DisruptionTarget" && condition["status"] == "True");
    match disrupted.map(|condition| text(&condition["reason"])).as_deref() {
        Some("PreemptionByScheduler" | "PreemptionByKueue") => return Some(Preempted),
        Some("EvictionByEvictionAPI" | "TerminationByKubelet") => return Some(Evicted),
        Some(_) => return Some(NodeLost),
        None => {}
    }
    let waiting = ["initContainerStatuses", "containerStatuses"].into_iter().any(|list| {
        let statuses = pod["status"].get(list).and_then(Value::as_array);
        statuses.into_iter().flatten().any(|status| {
            let reason = status.pointer("/state/waiting/reason").and_then(Value::as_str);
            matches!(
                reason,
                Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull")
            )
        })
    });
    waiting.then_some(ImagePull)
}

/// `text` as one word of at most 64 letters and digits: it is shown in a column and sent as an Event's reason.
fn word(text: &str) -> String {
    let word: String = text.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    if word.is_empty() { "Unknown".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn end(task: &Value, job: &Value, pods: &[Value], policy: Option<&FailurePolicy>) -> (Outcome, String) {
        let mut task = task.clone();
        task["metadata"] = json!({"name": "fixer-42", "uid": "u"});
        let state = TaskState::of(&task).unwrap();
        let evidence = Evidence {
            job: (!job.is_null()).then_some(job),
            pods,
        };
        let ending = classify(&task, &state, evidence, policy);
        (ending.outcome, ending.reason)
    }

    fn job(reason: &str) -> Value {
        json!({"status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason}]}})
    }

    #[test]
    fn the_cluster_is_blamed_only_on_evidence() {
        let ran = json!({"status": {"phase": "Failed", "startTime": "2026-11-21T00:00:00Z"}});
        let queued = json!({"status": {"phase": "Failed"}});
        let pod = |status: Value| vec![json!({"status": status})];
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
        let pods = [json!({"status": {"reason": "Evicted"}})];
        let ending = end(&task, &job("BackoffLimitExceeded"), &pods, Some(&policy));
        assert_eq!(ending, (Outcome::Failed, "Evicted".to_owned()));
    }

    #[test]
    fn a_failure_before_the_job_says_so() {
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
