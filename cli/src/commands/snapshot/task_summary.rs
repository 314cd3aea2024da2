//! The state of a Task as taskgate shows it. It differs from the Task's phase, as Kelos knows neither cancelled Tasks nor
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
use taskgate_policy::{Cancellation, announcement, conclusion, never_starts};

use crate::commands::work_items::is_tripped;

/// The state of a Task in one word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DisplayState {
    /// It is the tombstone of an item that failed too often, or was stopped because of that.
    CircuitBroken,
    /// It waits in a queue of Kueue.
    Queued,
    /// Its cancellation is announced or in progress.
    Cancelling,
    /// Its phase in Kelos.
    Phase(String),
    /// It was cancelled.
    Cancelled,
    /// It is being deleted.
    Terminating,
}

impl fmt::Display for DisplayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CircuitBroken => "CircuitBroken",
            Self::Queued => "Queued",
            Self::Cancelling => "Cancelling",
            // Kelos has not reconciled it yet.
            Self::Phase(phase) if phase.is_empty() => "New",
            Self::Phase(phase) => phase,
            Self::Cancelled => "Cancelled",
            Self::Terminating => "Terminating",
        })
    }
}

/// The state of a Task, since when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskSummary {
    pub(crate) state: DisplayState,
    pub(crate) since: Option<Timestamp>,
    pub(crate) why: String,
}

impl TaskSummary {
    /// The state of the Task `object`; `item` is its `WorkItem`, where that is known.
    pub(crate) fn of(object: &Value, item: Option<&WorkItem>) -> Self {
        let task = Task::of(object);
        let ended = task.status_time("completionTime");
        let (state, since, why) = if let Some(since) = task.deleting_since() {
            (DisplayState::Terminating, Some(since), finalizers(object))
        } else if let Some((since, why)) = cancelled(object) {
            (DisplayState::Cancelled, since.or(ended), why)
        } else if let Some(why) = cancelling(object) {
            let since = Cancellation::of(object).stamp.map(|stamp| stamp.requested);
            (DisplayState::Cancelling, since, why)
        } else if let Some(why) = item.and_then(|item| broken(object, item)) {
            (DisplayState::CircuitBroken, ended, why)
        } else if let Some(queued) = Condition::find(object, QUEUED).filter(|queued| waits(task, *queued)) {
            let why = format!("{}: {}", queued.reason(), queued.message());
            (DisplayState::Queued, queued.since(), why)
        } else {
            let started = task.status_time("startTime");
            let state = DisplayState::Phase(task.phase().to_owned());
            let why = match task.message() {
                "" => never_starts(object).unwrap_or_default(),
                message => message.to_owned(),
            };
            (state, ended.or(started), why)
        };
        Self {
            state,
            since: since.or_else(|| task.created()),
            why,
        }
    }
}

/// Since when and why the Task is cancelled. Its condition decides, also where Kelos' phase is Failed.
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

/// Why the Task is a tombstone, or was stopped.
fn broken(object: &Value, item: &WorkItem) -> Option<String> {
    let uid = Metadata::of(object).uid()?;
    let status = item.status.as_ref()?;
    let own = |attempt: &&Attempt| attempt.uid == uid;
    let attempt = status.attempts.iter().find(own)?;
    let key = &item.spec.key;
    if attempt.outcome == Outcome::Stopped {
        return Some(format!("stopped, as item {key} had failed too often"));
    }
    // After a reset of the item its tombstone is an ordinary failed Task that is about to be deleted.
    let is_tombstone = attempt.opened && is_tripped(item) && Task::of(object).phase() == kelos::FAILED;
    is_tombstone.then(|| format!("kept as the tombstone of item {key}; taskgate reset {key} lets it start again"))
}

fn waits(task: Task<'_>, queued: Condition<'_>) -> bool {
    queued.is_true() && !task.is_terminal()
}

fn finalizers(object: &Value) -> String {
    let finalizers: Vec<_> = Metadata::of(object).finalizers().collect();
    if finalizers.is_empty() {
        return String::new();
    }
    format!("waits for finalizers {}", finalizers.join(", "))
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

    fn shown(object: &Value, item: Option<&WorkItem>) -> (String, String) {
        let summary = TaskSummary::of(object, item);
        (summary.state.to_string(), summary.why)
    }

    #[test]
    fn the_phase_is_shown_unless_taskgate_has_another_state() {
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
                json!({"status": null, "spec": {"model": ""}}),
                "New",
                "Kelos cannot write this spec back unchanged and will never start the Task; leave out or write canonically: model",
            ),
            (
                json!({"status": {"phase": "Waiting", "message": "branch b is locked"}}),
                "Waiting",
                "branch b is locked",
            ),
        ] {
            let expected = (state.to_owned(), why.to_owned());
            assert_eq!(shown(&task(more.clone()), None), expected, "{more}");
            assert_eq!(shown(&task(more), Some(&closed)), expected);
        }
    }

    #[test]
    fn a_cancelled_task_is_cancelled_whatever_its_phase() {
        let condition = json!({"status": {"conditions": [{
            "type": "Cancelled", "status": "True", "reason": "ByHand", "message": "Cancelled by user:ann: stale",
            "lastTransitionTime": "2026-11-20T12:00:00Z",
        }]}});
        let summary = TaskSummary::of(&task(condition), None);
        assert_eq!(
            (summary.state, summary.why.as_str()),
            (DisplayState::Cancelled, "Cancelled by user:ann: stale")
        );
        assert_eq!(summary.since, "2026-11-20T12:00:00Z".parse().ok());
        // A Kelos with cancellation.
        let adopted = json!({"status": {"phase": "Cancelled", "cancelledBy": "user:ann", "message": "stale"}});
        assert_eq!(
            shown(&task(adopted), None),
            ("Cancelled".to_owned(), "stale".to_owned())
        );
        // Without `cancelledBy` the phase is not a cancellation.
        let forged = json!({"status": {"phase": "Cancelled"}});
        assert_eq!(
            TaskSummary::of(&task(forged), None).state,
            DisplayState::Phase("Cancelled".to_owned())
        );
    }

    #[test]
    fn a_request_to_cancel_is_shown_unless_it_came_too_late() {
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
            assert_eq!(shown(&task(asked(progress)), None), expected, "{progress}");
        }
    }

    #[test]
    fn a_tombstone_is_shown_while_its_item_is_tripped() {
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
                shown(&task(json!({})), Some(&item)),
                (state.to_owned(), why.to_owned()),
                "{item:?}"
            );
        }
    }

    #[test]
    fn a_queued_task_has_kueues_reason_until_it_ends() {
        let queued = |phase: &str, status: &str| {
            task(
                json!({"status": {"phase": phase, "message": "", "completionTime": null, "conditions": [{
                    "type": "Queued", "status": status, "reason": "WaitingForAdmission", "message": "no room",
                    "lastTransitionTime": "2026-11-20T10:30:00Z",
                }]}}),
            )
        };
        let summary = TaskSummary::of(&queued("Pending", "True"), None);
        assert_eq!(
            (summary.state, summary.why.as_str()),
            (DisplayState::Queued, "WaitingForAdmission: no room")
        );
        assert_eq!(summary.since, "2026-11-20T10:30:00Z".parse().ok());
        assert_eq!(shown(&queued("Running", "False"), None).0, "Running");
        assert_eq!(shown(&queued("Failed", "True"), None).0, "Failed");
    }

    #[test]
    fn a_terminating_task_has_its_finalizers() {
        let terminating = json!({"metadata": {
            "deletionTimestamp": "2026-11-20T12:00:00Z", "finalizers": ["kelos.dev/finalizer", "test.example/held"],
        }});
        let expected = (
            "Terminating".to_owned(),
            "waits for finalizers kelos.dev/finalizer, test.example/held".to_owned(),
        );
        assert_eq!(shown(&task(terminating), None), expected);
    }
}
