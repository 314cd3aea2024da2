//! Clocks that are wrong: those that Kelos and the API server write with, and our own, which may jump. A Task below the
//! limit and a tombstone with `resetAfter` are deleted in the end, whatever the times say.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use taskgate_api::{Mode, WorkItemStatus, task_policy::FailurePolicy, work_item::Outcome};
use taskgate_policy::{Ending, Retrying, TaskAction, TaskContext, TaskState, attempt, next_action, record};

/// The UID of the `WorkItem`.
const WORK_ITEM: &str = "0b6ad59a-2c5c-4b55-8d5d-3c1d3c8a9f10";
/// More actions than any Task needs, jumps included.
const MAX_STEPS: usize = 60;
const ITEM: &str = "fixer-42-e13156ca85";

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time that exists")
}

fn at(offset: i64) -> Timestamp {
    start()
        .checked_add(SignedDuration::from_secs(offset))
        .expect("a time that exists")
}

/// Half a century in either direction, and what is near.
fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![-1_500_000_000..1_500_000_000_i64, -120..120_i64]
}

/// A completion time as Kelos may leave it: none, garbage, or some time.
fn completion() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("yesterday")),
        Just(json!(7)),
        offset().prop_map(|offset| json!(at(offset).to_string())),
    ]
}

fn rules() -> impl Strategy<Value = FailurePolicy> {
    let rule = |value| serde_json::from_value(value).expect("a rule");
    prop_oneof![
        Just(rule(json!({"maxRetriesPerItem": 1, "resetAfter": "1h"}))),
        Just(rule(json!({"maxRetriesPerItem": 3}))),
        Just(rule(
            json!({"maxRetriesPerItem": 3, "backoff": {"initial": "1m", "max": "1h"}})
        )),
    ]
}

proptest! {
    #[test]
    fn every_failed_task_is_deleted_in_the_end(
        created in offset(),
        completion in completion(),
        rule in rules(),
        jumps in prop::collection::vec(offset(), 0..20),
    ) {
        let object = json!({
            "metadata": {"name": "fixer-42", "uid": "u", "creationTimestamp": at(created).to_string(),
                "finalizers": ["taskgate.dev/accounting"], "labels": {"taskgate.dev/work-item": ITEM},
                "annotations": {"taskgate.dev/ttl-seconds-after-finished": "5"}},
            "status": {"phase": "Failed", "startTime": at(created).to_string(), "completionTime": completion},
        });
        let mut task = TaskState::of(&object).expect("a Task");
        let mut status: Option<WorkItemStatus> = None;
        let (mut now, mut jumps) = (start(), jumps.into_iter());
        for _ in 0..MAX_STEPS {
            if let Some(jump) = jumps.next() {
                now = at(jump);
            }
            let action = next_action(&TaskContext {
                task: &task,
                others: &[],
                rule: Some((Mode::Enforce, &rule)),
                work_item: Some(ITEM),
                item_status: status.as_ref().map(|item| (WORK_ITEM, item)),
                retrying: Retrying::No,
                abandoned: false,
                now,
            });
            match action {
                TaskAction::Delete => return Ok(()),
                TaskAction::Wait(until) => {
                    prop_assert!(until > now, "it would spin: {until} at {now}");
                    now = until;
                }
                TaskAction::Record => {
                    let ending = Ending { outcome: Outcome::Failed, reason: "BackoffLimitExceeded".into() };
                    let attempt = attempt(&object, &task, ending, now);
                    let ended = attempt.completion_time.clone().map(|time| time.0);
                    prop_assert!(ended.is_some_and(|ended| ended <= now), "{ended:?} lies ahead of {now}");
                    let before = status.clone().unwrap_or_default();
                    let after = record(&before, attempt, Some(&rule), now);
                    prop_assert!(after.is_some(), "counted twice");
                    status = after;
                }
                TaskAction::Mark => task.recorded = Some(WORK_ITEM.into()),
                TaskAction::Refresh(next) => status = Some(*next),
                TaskAction::RemoveFinalizer => task.has_finalizer = false,
                TaskAction::AddFinalizer => task.has_finalizer = true,
                other => prop_assert!(false, "{other:?} ends nothing"),
            }
        }
        prop_assert!(false, "it stays for ever: {task:?} {status:?}");
    }
}
