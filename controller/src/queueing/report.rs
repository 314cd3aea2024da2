//! Reports on the Task how far its Job is: the condition `Queued`, an Event and metrics, only when that changed.

use jiff::{SignedDuration, Timestamp, Unit};
use kube::{api::DynamicObject, runtime::events::EventType};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{self, Registry},
};
use serde_json::{Value, json};
use taskgate_api::{
    condition::{Condition, QUEUED},
    job::Job,
};
use taskgate_policy::{QueueReason, QueueState, clip};
use tracing::debug;

use super::QueueingReconciler;
use crate::{
    error::Error,
    events,
    kubernetes::{json_of, rfc3339, with_condition},
    metrics::{Labels, registered},
    task::{self, Subject, TaskResult},
};

/// Upper bounds of the waiting time, in seconds: from "at once" to a day.
const BUCKETS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];
/// The longest message, in characters.
const MAX_MESSAGE: usize = 1024;

/// Writes `state` of its Job to the Task `cached`. The cache is enough to see that the Task states it already; a write follows a
/// read of the API server and carries its resource version, since Kelos writes the whole status. `Conflict`: try again.
pub(super) async fn report(
    queueing: &QueueingReconciler,
    cached: &DynamicObject,
    job: &Value,
    state: &QueueState,
) -> Result<TaskResult, Error> {
    let context = &*queueing.context;
    let created = Job::of(job).created();
    if change(&json_of(cached), state, created, context.now()).is_none() {
        return Ok(TaskResult::AwaitChange);
    }
    let Some(subject) = Subject::of(context, cached) else {
        return Ok(TaskResult::AwaitChange);
    };
    let fresh = task::read_untrimmed(context, &subject).await?;
    let Some(fresh) = fresh.filter(|task| task.metadata.deletion_timestamp.is_none()) else {
        return Ok(TaskResult::AwaitChange);
    };
    let fresh = json_of(&fresh);
    let Some(change) = change(&fresh, state, created, context.now()) else {
        return Ok(TaskResult::AwaitChange);
    };
    let (version, status) = (
        fresh.pointer("/metadata/resourceVersion"),
        json!({"conditions": change.conditions}),
    );
    let result = task::patch_status(context, &subject, version, status).await?;
    if matches!(result, TaskResult::Changed(_)) && change.reason_changed {
        record(queueing, &subject, job, state, &change);
    }
    Ok(result)
}

/// Records the Event and the metrics.
fn record(queueing: &QueueingReconciler, subject: &Subject, job: &Value, state: &QueueState, change: &ConditionChange) {
    let reason: &str = state.reason.into();
    debug!(
        namespace = subject.namespace,
        name = subject.state.name,
        reason,
        "queue"
    );
    let metrics = &queueing.metrics;
    metrics.states.get_or_create(&[("reason", reason)]).inc();
    if let Some(waited) = change.waited {
        let queue = Job::of(job).queue().unwrap_or_default().to_owned();
        let labels = [("namespace", subject.namespace.clone()), ("queue", queue)];
        metrics.waited.get_or_create(&labels).observe(waited.as_secs_f64());
    }
    let type_ = if state.reason.is_trap() {
        EventType::Warning
    } else {
        EventType::Normal
    };
    let regarding = events::reference(&subject.object);
    let events = &queueing.context.events;
    events.publish(type_, reason, "Queue", &change.message, &regarding);
}

/// The metrics of queues. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct QueueingMetrics {
    /// By `namespace` and `queue`.
    waited: Family<Labels<2, String>, Histogram, fn() -> Histogram>,
    /// By `reason`.
    states: Family<Labels<1>, Counter>,
}

impl QueueingMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let waited = Family::<_, _, fn() -> Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register_with_unit(
            "queue_wait",
            "How long Jobs waited until Kueue admitted them. Queues that exist, and no others, have a label here",
            registry::Unit::Seconds,
            waited.clone(),
        );
        let states = registered(
            registry,
            "queue_states",
            "How often the condition Queued of a Task got another reason, by reason",
        );
        Self { waited, states }
    }
}

/// The change of a Task that the condition needs.
#[derive(Clone, Debug, PartialEq)]
struct ConditionChange {
    /// All conditions of the Task, with this one as it should be.
    conditions: Vec<Value>,
    /// The condition's message.
    message: String,
    /// Whether the reason changed, and not only the message.
    reason_changed: bool,
    /// How long the Job waited, when it was admitted just now.
    waited: Option<SignedDuration>,
}

/// The change that makes the condition of `task` state `state`; `None` if it does. `created`: when the Job was created.
fn change(task: &Value, state: &QueueState, created: Option<Timestamp>, now: Timestamp) -> Option<ConditionChange> {
    let before = Condition::find(task, QUEUED);
    let waited_before = before.is_some_and(Condition::is_true);
    if state.reason.ends_a_wait() && !waited_before {
        return None;
    }
    let status = if state.waits { "True" } else { "False" };
    let same_status = before.is_some_and(|before| before.status() == status);
    let same_reason = same_status && before.is_some_and(|before| before.reason() == state.reason.as_ref());
    let mut message = state.message.clone();
    let mut waited = None;
    if state.reason == QueueReason::Admitted {
        // Written once: a second computation does not know the wait any more.
        if same_reason {
            return None;
        }
        let from = before.filter(|_| waited_before).and_then(Condition::since).or(created);
        let until = state.since.unwrap_or(now);
        waited = from.map(|from| until.duration_since(from).max(SignedDuration::ZERO));
        if let Some(waited) = waited {
            let rounded = waited.round(Unit::Second).unwrap_or(waited);
            message = format!("{message} after {rounded:#} in the queue");
        }
    }
    let message = clip(&message, MAX_MESSAGE);
    if same_reason && before.is_some_and(|before| before.message() == message) {
        return None;
    }
    let since = match before.filter(|_| same_status).and_then(Condition::since) {
        Some(since) => since,
        // The wait begins with the Job, whenever the watch showed it first.
        None if state.waits && before.is_none() => created.unwrap_or(now),
        None => state.since.unwrap_or(now),
    };
    let queued = json!({
        "type": QUEUED, "status": status, "reason": state.reason.as_ref(), "message": message,
        "lastTransitionTime": rfc3339(since),
        "observedGeneration": task.pointer("/metadata/generation").cloned().unwrap_or_default(),
    });
    Some(ConditionChange {
        conditions: with_condition(task, queued),
        message,
        reason_changed: !same_reason,
        waited,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(1_800_000_000 + seconds, 0).expect("in range")
    }

    fn state(waits: bool, reason: QueueReason, message: &str, since: Option<i64>) -> QueueState {
        QueueState {
            waits,
            reason,
            message: message.to_owned(),
            since: since.map(at),
        }
    }

    fn task(conditions: &[Value]) -> Value {
        json!({"metadata": {"generation": 1}, "status": {"conditions": conditions}})
    }

    fn changed(task: &Value, state: &QueueState) -> Option<ConditionChange> {
        change(task, state, Some(at(0)), at(100))
    }

    #[test]
    fn each_change_is_written_once_and_the_wait_is_measured() {
        let other = json!({"type": "BudgetBlocked", "status": "False"});
        let waiting = state(true, QueueReason::WaitingForAdmission, "no room", None);
        let first = changed(&task(std::slice::from_ref(&other)), &waiting).expect("a change");
        assert_eq!((first.conditions.len(), &first.conditions[0]), (2, &other));
        assert!(first.reason_changed && first.waited.is_none());
        assert_eq!(
            first.conditions[1]["lastTransitionTime"], "2027-01-15T08:00:00Z",
            "since the Job was created"
        );
        let after = task(&first.conditions);
        assert_eq!(changed(&after, &waiting), None);
        let more = state(true, QueueReason::WaitingForAdmission, "still no room", None);
        assert!(changed(&after, &more).is_some_and(|change| !change.reason_changed));

        let admitted = state(false, QueueReason::Admitted, "admitted by ClusterQueue a", Some(72));
        let second = changed(&after, &admitted).expect("a change");
        assert_eq!(second.waited, Some(SignedDuration::from_secs(72)));
        assert_eq!(second.message, "admitted by ClusterQueue a after 1m 12s in the queue");
        let after = task(&second.conditions);
        assert_eq!(changed(&after, &admitted), None);

        let preempted = state(
            true,
            QueueReason::Preempted,
            "by a workload of higher priority",
            Some(80),
        );
        let third = changed(&after, &preempted).expect("a change");
        let again = state(false, QueueReason::Admitted, "admitted by ClusterQueue a", Some(90));
        let fourth = changed(&task(&third.conditions), &again).expect("a change");
        assert_eq!(
            fourth.waited,
            Some(SignedDuration::from_secs(10)),
            "since it was preempted"
        );
    }

    #[test]
    fn an_end_is_written_only_to_a_task_that_waited() {
        let ended = state(false, QueueReason::Ended, "ended", None);
        assert_eq!(changed(&task(&[]), &ended), None);
        let admitted = json!({"type": QUEUED, "status": "False", "reason": "Admitted"});
        assert_eq!(changed(&task(&[admitted]), &ended), None);
        let waiting = json!({"type": QUEUED, "status": "True", "reason": "WaitingForAdmission"});
        assert!(changed(&task(&[waiting]), &ended).is_some());
    }
}
