//! The condition `Queued` of a Task, computed from what Kueue does with its Job.

use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Value, json};
use taskgate_api::condition::{Condition, QUEUED};
use taskgate_policy::{QueueReason, QueueState, clip};

use crate::kubernetes::rfc3339;

/// The longest message, in characters.
const MAX_MESSAGE: usize = 1024;

/// The change of a Task that the condition needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConditionChange {
    /// All conditions of the Task, with this one as it should be.
    pub(super) conditions: Vec<Value>,
    /// The condition's message.
    pub(super) message: String,
    /// Whether the reason changed, and not only the message.
    pub(super) reason_changed: bool,
    /// How long the Job waited, when it was admitted just now.
    pub(super) waited: Option<SignedDuration>,
}

/// The change that makes the condition of `task` state `state`; `None` if it does. `created`: when the Job was created.
pub(super) fn change(
    task: &Value,
    state: &QueueState,
    created: Option<Timestamp>,
    now: Timestamp,
) -> Option<ConditionChange> {
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
        waited = from.map(|from| {
            state
                .since
                .unwrap_or(now)
                .duration_since(from)
                .max(SignedDuration::ZERO)
        });
        if let Some(waited) = waited {
            message = format!("{message} after {} in the queue", seconds(waited));
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
    let stored = task.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = stored.cloned().unwrap_or_default();
    match conditions.iter_mut().find(|condition| condition["type"] == QUEUED) {
        Some(condition) => *condition = queued,
        None => conditions.push(queued),
    }
    Some(ConditionChange {
        conditions,
        message,
        reason_changed: !same_reason,
        waited,
    })
}

/// A duration in whole seconds, as people write it.
fn seconds(duration: SignedDuration) -> String {
    let rounded = duration.round(Unit::Second).unwrap_or(duration);
    format!("{rounded:#}")
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
