//! Where a Task stands as taskgate sees it, which is not always what its phase says: Kelos knows neither cancelled Tasks nor
//! tombstones nor queues.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::{
    WorkItem,
    condition::{CANCELLED, Condition, QUEUED},
    kelos::{self, Task},
    metadata::Metadata,
    work_item::{Attempt, Outcome},
};
use taskgate_policy::{Cancellation, announcement, conclusion};

/// Where a Task stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::commands) enum State {
    /// It is kept, or was stopped, because its item failed too often.
    CircuitBroken,
    /// It waits in a queue of Kueue's.
    Queued,
    /// It is going to be cancelled, or that is under way.
    Cancelling,
    /// What Kelos says.
    Phase(String),
    /// It was cancelled.
    Cancelled,
    /// It is being deleted.
    Terminating,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CircuitBroken => "CircuitBroken",
            Self::Queued => "Queued",
            Self::Cancelling => "Cancelling",
            // Kelos has not looked at it yet.
            Self::Phase(phase) if phase.is_empty() => "New",
            Self::Phase(phase) => phase,
            Self::Cancelled => "Cancelled",
            Self::Terminating => "Terminating",
        })
    }
}

/// Where a Task stands, since when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Standing {
    pub(in crate::commands) state: State,
    pub(in crate::commands) since: Option<Timestamp>,
    /// Empty where there is nothing to say.
    pub(in crate::commands) why: String,
}

impl Standing {
    /// Where the Task `object` stands; `item` is its `WorkItem`, where that is known.
    pub(in crate::commands) fn of(object: &Value, item: Option<&WorkItem>) -> Self {
        let task = Task::of(object);
        let ended = task.status_time("completionTime");
        let (state, since, why) = if let Some(since) = task.deleting_since() {
            (State::Terminating, Some(since), held_by(object))
        } else if let Some((since, why)) = cancelled(object) {
            (State::Cancelled, since.or(ended), why)
        } else if let Some(why) = cancelling(object) {
            let asked = Cancellation::of(object).stamp.map(|stamp| stamp.requested);
            (State::Cancelling, asked, why)
        } else if let Some(why) = item.and_then(|item| broken(object, item)) {
            (State::CircuitBroken, ended, why)
        } else if let Some(queued) = Condition::find(object, QUEUED).filter(|queued| waits(task, *queued)) {
            let why = format!("{}: {}", queued.reason(), queued.message());
            (State::Queued, queued.since(), why)
        } else {
            let started = task.status_time("startTime");
            let state = State::Phase(task.phase().to_owned());
            (state, ended.or(started), task.message().to_owned())
        };
        Self {
            state,
            since: since.or_else(|| task.created()),
            why,
        }
    }
}

/// Whether the Task was cancelled: since when, by whom and why. Its condition counts, even where Kelos' phase is Failed.
fn cancelled(object: &Value) -> Option<(Option<Timestamp>, String)> {
    let task = Task::of(object);
    let condition = Condition::find(object, CANCELLED).filter(|condition| condition.is_true());
    let cancellation = Cancellation::of(object);
    if let Some(condition) = condition {
        return Some((condition.since(), condition.message().to_owned()));
    }
    if task.is_cancelled() {
        return Some((None, task.message().to_owned()));
    }
    cancellation.is_concluded().then(|| (None, conclusion(&cancellation)))
}

fn cancelling(object: &Value) -> Option<String> {
    let cancellation = Cancellation::of(object);
    let stamp = cancellation.stamp.as_ref().filter(|_| cancellation.is_pending())?;
    Some(announcement(stamp, &cancellation))
}

/// Why the Task is not followed by another one, or was stopped itself.
fn broken(object: &Value, item: &WorkItem) -> Option<String> {
    let uid = Metadata::of(object).uid()?;
    let status = item.status.as_ref()?;
    let own = |attempt: &&Attempt| attempt.uid == uid;
    let attempt = status.attempts.iter().find(own)?;
    let key = &item.spec.key;
    if attempt.outcome == Outcome::Stopped {
        return Some(format!("stopped, as item {key} had failed too often"));
    }
    // Once the item is reset, its tombstone is an ordinary failed Task on its way out.
    let is_tombstone = attempt.opened && super::is_open(item) && Task::of(object).phase() == kelos::FAILED;
    is_tombstone.then(|| format!("kept as the tombstone of item {key}; taskgate reset {key} lets it start again"))
}

fn waits(task: Task<'_>, queued: Condition<'_>) -> bool {
    queued.is_true() && !task.is_terminal()
}

fn held_by(object: &Value) -> String {
    let finalizers: Vec<_> = Metadata::of(object).finalizers().collect();
    if finalizers.is_empty() {
        return String::new();
    }
    format!("held by {}", finalizers.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use taskgate_api::{WorkItemStatus, keys};

    use super::*;

    fn task(more: Value) -> Value {
        let mut task = json!({
            "metadata": {"name": "t", "uid": "u", "creationTimestamp": "2026-11-20T10:00:00Z"},
            "status": {"phase": "Failed", "message": "exit code 1", "completionTime": "2026-11-20T11:00:00Z"},
        });
        json_patch_merge(&mut task, more);
        task
    }

    fn json_patch_merge(into: &mut Value, more: Value) {
        match (into, more) {
            (Value::Object(into), Value::Object(more)) => {
                for (key, value) in more {
                    json_patch_merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, more) => *into = more,
        }
    }

    fn item(breaker: &str, outcome: &str, opened: bool) -> WorkItem {
        let spec = json!({"key": "fixer/42", "item": "42"});
        let mut item = WorkItem::new("fixer-42-0", serde_json::from_value(spec).expect("a spec"));
        let status = json!({
            "breaker": breaker,
            "attempts": [{"uid": "u", "name": "t", "outcome": outcome, "opened": opened}],
        });
        item.status = Some(serde_json::from_value::<WorkItemStatus>(status).expect("a status"));
        item
    }

    fn said(object: &Value, item: Option<&WorkItem>) -> (String, String) {
        let standing = Standing::of(object, item);
        (standing.state.to_string(), standing.why)
    }

    #[test]
    fn the_phase_stands_where_taskgate_knows_nothing_better() {
        let closed = item("Closed", "Failed", false);
        for (more, state, why) in [
            (json!({}), "Failed", "exit code 1"),
            (
                json!({"status": {"phase": "Succeeded", "message": null}}),
                "Succeeded",
                "",
            ),
            (json!({"status": null}), "New", ""),
            (
                json!({"status": {"phase": "Waiting", "message": "branch b is locked"}}),
                "Waiting",
                "branch b is locked",
            ),
        ] {
            let expected = (state.to_owned(), why.to_owned());
            assert_eq!(said(&task(more.clone()), None), expected, "{more}");
            assert_eq!(said(&task(more), Some(&closed)), expected);
        }
    }

    #[test]
    fn a_cancelled_task_is_cancelled_whatever_its_phase() {
        let condition = json!({"status": {"conditions": [{
            "type": "Cancelled", "status": "True", "reason": "ByHand", "message": "Cancelled by user:ann: stale",
            "lastTransitionTime": "2026-11-20T12:00:00Z",
        }]}});
        let standing = Standing::of(&task(condition), None);
        assert_eq!(
            (standing.state, standing.why.as_str()),
            (State::Cancelled, "Cancelled by user:ann: stale")
        );
        assert_eq!(standing.since, "2026-11-20T12:00:00Z".parse().ok());
        // A Kelos that has adopted proposal 001.
        let adopted = json!({"status": {"phase": "Cancelled", "cancelledBy": "user:ann", "message": "stale"}});
        assert_eq!(said(&task(adopted), None), ("Cancelled".to_owned(), "stale".to_owned()));
        // To one that has not, the phase alone is nothing.
        let forged = json!({"status": {"phase": "Cancelled"}});
        assert_eq!(
            Standing::of(&task(forged), None).state,
            State::Phase("Cancelled".to_owned())
        );
    }

    #[test]
    fn a_request_to_cancel_is_seen_until_it_came_too_late() {
        let asked = |progress: &str| {
            json!({"metadata": {"annotations": {
                keys::CANCEL: "stale", keys::CANCELLED_BY: "user:ann", keys::CANCEL_TRIGGER: "ByHand",
                keys::CANCEL_REQUESTED: "2026-11-20T12:00:00Z", keys::CANCEL_DEADLINE: "2026-11-20T12:01:00Z",
                keys::CANCEL_STATE: progress,
            }}, "status": {"phase": "Running", "message": ""}})
        };
        let announced = "will be cancelled at 2026-11-20T12:01:00Z by user:ann: stale";
        for (progress, state, why) in [
            ("Announced", "Cancelling", announced),
            ("Cancelling", "Cancelling", announced),
            ("TooLate", "Running", ""),
            ("Refused", "Running", ""),
            ("Cancelled", "Cancelled", "Cancelled by user:ann: stale"),
        ] {
            let expected = (state.to_owned(), why.to_owned());
            assert_eq!(said(&task(asked(progress)), None), expected, "{progress}");
        }
    }

    #[test]
    fn a_tombstone_is_one_as_long_as_its_item_is_stopped() {
        let tombstone = "kept as the tombstone of item fixer/42; taskgate reset fixer/42 lets it start again";
        for (item, state, why) in [
            (item("Open", "Failed", true), "CircuitBroken", tombstone),
            (item("HalfOpen", "Failed", true), "CircuitBroken", tombstone),
            (item("Closed", "Failed", true), "Failed", "exit code 1"),
            (item("Open", "Failed", false), "Failed", "exit code 1"),
            (
                item("Open", "Stopped", false),
                "CircuitBroken",
                "stopped, as item fixer/42 had failed too often",
            ),
        ] {
            assert_eq!(
                said(&task(json!({})), Some(&item)),
                (state.to_owned(), why.to_owned()),
                "{item:?}"
            );
        }
    }

    #[test]
    fn a_queued_task_says_kueues_reason_until_it_ends() {
        let queued = |phase: &str, status: &str| {
            task(
                json!({"status": {"phase": phase, "message": "", "completionTime": null, "conditions": [{
                    "type": "Queued", "status": status, "reason": "WaitingForAdmission", "message": "no room",
                    "lastTransitionTime": "2026-11-20T10:30:00Z",
                }]}}),
            )
        };
        let standing = Standing::of(&queued("Pending", "True"), None);
        assert_eq!(
            (standing.state, standing.why.as_str()),
            (State::Queued, "WaitingForAdmission: no room")
        );
        assert_eq!(standing.since, "2026-11-20T10:30:00Z".parse().ok());
        assert_eq!(said(&queued("Running", "False"), None).0, "Running");
        assert_eq!(said(&queued("Failed", "True"), None).0, "Failed");
    }

    #[test]
    fn what_goes_says_what_holds_it() {
        let going = json!({"metadata": {
            "deletionTimestamp": "2026-11-20T12:00:00Z", "finalizers": ["kelos.dev/finalizer", "test.example/held"],
        }});
        let expected = (
            "Terminating".to_owned(),
            "held by kelos.dev/finalizer, test.example/held".to_owned(),
        );
        assert_eq!(said(&task(going), None), expected);
    }
}
