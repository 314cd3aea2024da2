//! The lifecycle of one Task: the next action of the controller, derived anew each time from what is stored.
//!
//! Nothing is kept in memory between two actions, so that a crash between them loses nothing: the next reconcile finds the same
//! action, or the one after it. The order matters:
//!
//! * an end is recorded in the `WorkItem` before the finalizer is removed;
//! * taskgate's own deletion first removes the finalizer and then deletes: a Task that is deleted with the finalizer was deleted
//!   by a user or another controller, and that is a reset.

use jiff::{SignedDuration, Timestamp};
use taskgate_api::{
    Mode, WorkItemStatus,
    task_policy::FailurePolicy,
    work_item::{Attempt, Breaker, Outcome},
};

use super::{
    attempt_history::{HISTORY, refresh, reset},
    backoff::{next_attempt, signed},
    evaluate::{allowance, breaker_state},
    task_state::{TaskPhase, TaskState},
};

/// How much later than admission allows a next attempt the old Task is deleted: clocks of replicas differ, and a create that
/// comes too early is denied, which costs a spawner a failed cycle (kelos §4).
const SKEW: SignedDuration = SignedDuration::from_secs(2);

/// The inputs of the next action.
#[derive(Clone, Copy, Debug)]
pub struct TaskContext<'a> {
    /// The Task.
    pub task: &'a TaskState,
    /// The other Tasks of the item.
    pub others: &'a [TaskState],
    /// The mode and the failure section that apply to the Task. `None`: no policy, or it is off.
    pub rule: Option<(Mode, &'a FailurePolicy)>,
    /// The name of the Task's work item; `None` when it belongs to none.
    pub work_item: Option<&'a str>,
    /// The UID and the status of the `WorkItem`, read consistently; `None` when there is none.
    pub item_status: Option<(&'a str, &'a WorkItemStatus)>,
    /// What the retry feature does with the Task.
    pub retrying: Retrying,
    /// Whether the Task is deleted only because its namespace or its spawner is.
    pub abandoned: bool,
    /// What time it is.
    pub now: Timestamp,
}

/// What the retry feature does with a Task that no spawner creates again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retrying {
    /// Nothing: no policy retries it.
    #[default]
    No,
    /// It retries the Task, or keeps it as the last one: only it deletes a failed one.
    Keeps,
    /// It is deleting the Task, to create its successor: the deletion is taskgate's own.
    Deletes,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskAction {
    /// Nothing, until something changes.
    Done,
    /// Nothing, until this moment.
    Wait(Timestamp),
    /// Add finalizer and label to the Task.
    AddFinalizer,
    /// Fail the Task's Job: the breaker does not allow the Task.
    Stop,
    /// Fail the Task's Job if admission marked it as one that must not run.
    StopMarked,
    /// Record the Task's end in the `WorkItem`, which is created when it is missing.
    Record,
    /// Annotate the Task: its end is recorded.
    Mark,
    /// Reset the item's failures: a user or another controller deleted the Task.
    Reset,
    /// Write the breaker's state as the policy and the time make it.
    Refresh(Box<WorkItemStatus>),
    /// Remove the finalizer from the Task.
    RemoveFinalizer,
    /// Delete the Task.
    Delete,
}

/// The next action for the Task of `context`.
pub fn next_action(context: &TaskContext<'_>) -> TaskAction {
    let task = context.task;
    let kept = context.retrying != Retrying::No && task.phase == TaskPhase::Failed && task.deleting.is_none();
    let enforced = context.rule.is_some_and(|(mode, _)| mode == Mode::Enforce);
    match action_of(context) {
        TaskAction::Delete if kept => TaskAction::Done,
        // The finalizer would be removed only to delete the Task.
        TaskAction::RemoveFinalizer if kept && enforced => TaskAction::Done,
        action => action,
    }
}

fn action_of(context: &TaskContext<'_>) -> TaskAction {
    match (context.rule, context.work_item) {
        _ if context.task.deleting.is_some() => deleting(context),
        (Some((mode, rule)), Some(work_item)) => governed(context, mode, rule, work_item),
        _ if context.task.has_finalizer => TaskAction::RemoveFinalizer,
        _ => keep_ttl(context),
    }
}

/// The Task is being deleted: not by taskgate if it still has the finalizer.
fn deleting(context: &TaskContext<'_>) -> TaskAction {
    let task = context.task;
    if !task.has_finalizer {
        return TaskAction::Done;
    }
    if context.abandoned || context.rule.is_none() || context.work_item.is_none() {
        return TaskAction::RemoveFinalizer;
    }
    if !is_recorded(context) {
        return TaskAction::Record;
    }
    let cancelled = context.outcome() == Some(Outcome::Cancelled);
    let ours = context.retrying == Retrying::Deletes;
    if task.phase == TaskPhase::Failed && !task.deleted_by_kelos_ttl() && !cancelled && !ours {
        let again = context
            .item_status
            .is_some_and(|(_, status)| reset(status, "TombstoneDeleted", Some(&task.uid), context.now).is_some());
        if again {
            return TaskAction::Reset;
        }
    }
    TaskAction::RemoveFinalizer
}

fn governed(context: &TaskContext<'_>, mode: Mode, rule: &FailurePolicy, work_item: &str) -> TaskAction {
    let task = context.task;
    if mode != Mode::Enforce {
        // The end is recorded, and the Task is not changed.
        return match (task.has_finalizer, task.is_terminal() && !is_recorded(context)) {
            (_, true) => TaskAction::Record,
            (true, false) => TaskAction::RemoveFinalizer,
            (false, false) => keep_ttl(context),
        };
    }
    if task.phase == TaskPhase::Active {
        return active(context, rule, work_item);
    }
    if is_recorded_in_deleted_item(context) && context.retrying == Retrying::No {
        // The WorkItem was deleted, which asks for a new attempt.
        return match task.phase {
            TaskPhase::Failed if task.has_finalizer => TaskAction::RemoveFinalizer,
            TaskPhase::Failed => TaskAction::Delete,
            _ if task.has_finalizer => TaskAction::RemoveFinalizer,
            _ => keep_ttl(context),
        };
    }
    if !is_recorded(context) {
        // The finalizer is needed before the failure is counted, so that a deletion is noticed.
        let seen = task.has_finalizer && task.work_item.as_deref() == Some(work_item);
        return if task.phase == TaskPhase::Failed && !seen {
            TaskAction::AddFinalizer
        } else {
            TaskAction::Record
        };
    }
    if task.recorded.is_none() {
        return TaskAction::Mark;
    }
    match task.phase {
        TaskPhase::Failed => failed(context, rule),
        _ if task.has_finalizer => TaskAction::RemoveFinalizer,
        _ => keep_ttl(context),
    }
}

/// A Task under way: it gets the finalizer, and is stopped if the breaker does not allow it.
fn active(context: &TaskContext<'_>, rule: &FailurePolicy, work_item: &str) -> TaskAction {
    let task = context.task;
    // The end of an active Task is not recorded yet, whatever its annotation says.
    let seen = task.has_finalizer && task.work_item.as_deref() == Some(work_item) && task.recorded.is_none();
    if !seen {
        // First, so that its end is seen.
        return TaskAction::AddFinalizer;
    }
    // Admission marks the Job of one that raced with others, also when nothing has failed yet.
    let marked = !task.started && (context.item_status.is_some() || !context.others.is_empty());
    let otherwise = if marked {
        TaskAction::StopMarked
    } else {
        TaskAction::Done
    };
    let Some((_, status)) = context.item_status else {
        return otherwise;
    };
    let before = context
        .others
        .iter()
        .filter(|other| other.may_still_count(Some(status)) && other.is_before(task));
    let before = u32::try_from(before.count()).unwrap_or(u32::MAX);
    // A running agent is not stopped because a limit was lowered: only what came although the breaker was open, and what
    // has not started.
    let came_after = status.opened_at.as_ref().is_some_and(|opened| task.created > opened.0);
    if before >= allowance(status, rule, context.now) && (came_after || !task.started) {
        return TaskAction::Stop;
    }
    otherwise
}

/// A failed Task whose end is recorded: kept as the tombstone, or deleted so that its spawner creates the next one.
fn failed(context: &TaskContext<'_>, rule: &FailurePolicy) -> TaskAction {
    let task = context.task;
    let Some((_, status)) = context.item_status else {
        return TaskAction::Done;
    };
    let delete = if task.has_finalizer {
        TaskAction::RemoveFinalizer
    } else {
        TaskAction::Delete
    };
    let refreshed = |otherwise: TaskAction| {
        refresh(status, Some(rule), context.now).map_or(otherwise, |status| TaskAction::Refresh(Box::new(status)))
    };
    // After a crash between removing the finalizer and deleting, with another policy meanwhile: add the finalizer again.
    let keep = if task.has_finalizer {
        TaskAction::Done
    } else {
        TaskAction::AddFinalizer
    };
    match breaker_state(status, rule, context.now) {
        Breaker::Open => match probe_due(status, rule) {
            Some(due) if task.has_finalizer => refreshed(TaskAction::Wait(due)),
            _ => refreshed(keep),
        },
        Breaker::HalfOpen => {
            if let Some(due) = probe_due(status, rule).filter(|due| *due > context.now) {
                return if task.has_finalizer {
                    TaskAction::Wait(due)
                } else {
                    keep
                };
            }
            // One probe at a time: the latest tombstone is deleted for it, the others stay.
            let latest = !context
                .others
                .iter()
                .any(|other| other.phase == TaskPhase::Failed && other.deleting.is_none() && task.is_before(other));
            let probing = context.others.iter().any(|other| other.may_still_count(Some(status)));
            if latest && !probing {
                refreshed(delete)
            } else {
                refreshed(keep)
            }
        }
        Breaker::Closed => {
            let opened = context
                .attempt()
                .is_some_and(|attempt| attempt.opened || attempt.outcome == Outcome::Stopped);
            let was_reset = status.consecutive_failures == 0 && status.infrastructure_failures == 0;
            if opened && was_reset && status.breaker != Some(Breaker::Open) {
                return delete;
            }
            match due(context, status, rule) {
                Some(due) if due <= context.now => refreshed(delete),
                Some(due) if task.has_finalizer => refreshed(TaskAction::Wait(due)),
                _ => refreshed(keep),
            }
        }
    }
}

/// When the tombstone is deleted for a probe. `None`: only by a reset.
fn probe_due(status: &WorkItemStatus, rule: &FailurePolicy) -> Option<Timestamp> {
    let since = status.opened_at.as_ref().or(status.last_failure_time.as_ref())?;
    since.0.checked_add(signed(rule.reset_after?)).ok().map(later)
}

/// When a failed Task below the limit is deleted: after the backoff where the policy has one, whatever its TTL; else after its TTL.
/// `None`: never, as Kelos would keep it.
///
/// A Task that did not fail by itself has no backoff of its own: it stays until its TTL, and until the backoff of the item is over.
fn due(context: &TaskContext<'_>, status: &WorkItemStatus, rule: &FailurePolicy) -> Option<Timestamp> {
    let ttl = if context.task.must_be_replaced {
        Some(context.task.created)
    } else {
        ttl_end(context, context.task.kept_ttl.or(context.task.spec_ttl))
    };
    let next = next_attempt(status, rule).map(later);
    match context.outcome() {
        Some(Outcome::Cancelled | Outcome::Stopped | Outcome::Deleted) => ttl.max(next),
        _ => next.or(ttl),
    }
}

/// When a Task is deleted whose next attempt is allowed from `moment` on.
fn later(moment: Timestamp) -> Timestamp {
    moment.checked_add(SKEW).unwrap_or(moment)
}

/// Deletes the Task after the TTL that admission moved to the annotation, as Kelos would have done.
fn keep_ttl(context: &TaskContext<'_>) -> TaskAction {
    match ttl_end(context, context.task.kept_ttl) {
        None => TaskAction::Done,
        Some(end) if end > context.now => TaskAction::Wait(end),
        Some(_) => TaskAction::Delete,
    }
}

/// When `ttl`, in seconds from the Task's end, is over.
fn ttl_end(context: &TaskContext<'_>, ttl: Option<u32>) -> Option<Timestamp> {
    let task = context.task;
    let ttl = ttl.filter(|_| task.is_terminal())?;
    let recorded = context.attempt().and_then(|attempt| attempt.completion_time.as_ref());
    let ended = task.ttl_start(recorded.map(|time| time.0), context.now);
    ended.checked_add(SignedDuration::from_secs(i64::from(ttl))).ok()
}

/// Whether the Task's end is recorded in the `WorkItem`, or was before the history was cut.
///
/// The Task's own annotation alone proves nothing where the Task may be unadmitted: its creator can write it. A `WorkItem` that has room in its history and does not list the attempt never had it.
fn is_recorded(context: &TaskContext<'_>) -> bool {
    let task = context.task;
    let marked = task.recorded.as_deref();
    context.item_status.is_some_and(|(uid, status)| {
        let cut = status.attempts.len() >= HISTORY;
        (marked == Some(uid) && cut) || context.attempt().is_some() || is_older_than_history(task, status, context.now)
    }) || (task.deleting.is_some() && is_marked_elsewhere(context))
}

/// Whether the Task's annotation names a `WorkItem` that was deleted. An active Task has no end that could have been recorded, and
/// a value that is no UID names no `WorkItem`.
fn is_marked_elsewhere(context: &TaskContext<'_>) -> bool {
    let named = context.task.recorded.as_deref().filter(|marked| is_uid(marked));
    let there = context.item_status.map(|(uid, _)| uid);
    context.task.is_terminal() && named.is_some_and(|named| there != Some(named))
}

/// Whether `text` has the form of the UIDs that the API server gives.
fn is_uid(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && text.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-')
}

/// Whether the Task ended before every attempt of a full history: its attempt was cut. Where Tasks are only observed, and so have
/// no annotation, this prevents that an old one is counted again.
fn is_older_than_history(task: &TaskState, status: &WorkItemStatus, now: Timestamp) -> bool {
    let oldest = status
        .attempts
        .first()
        .and_then(|attempt| attempt.completion_time.as_ref());
    task.is_terminal()
        && status.attempts.len() >= HISTORY
        && oldest.is_some_and(|oldest| task.ended_by(task.created, now) < oldest.0)
}

/// Whether the Task's end was recorded in a `WorkItem` that exists no longer.
fn is_recorded_in_deleted_item(context: &TaskContext<'_>) -> bool {
    is_marked_elsewhere(context) && !is_recorded(context)
}

impl TaskContext<'_> {
    /// The Task's own attempt, if the history still has it.
    fn attempt(&self) -> Option<&Attempt> {
        let (_, status) = self.item_status?;
        status.attempts.iter().find(|attempt| attempt.uid == self.task.uid)
    }

    /// What the Task's end was recorded as.
    fn outcome(&self) -> Option<Outcome> {
        self.attempt().map(|attempt| attempt.outcome)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The backoff decides, whatever the TTL; without one, and for a Task that did not fail by itself, the TTL does.
    #[test]
    fn the_backoff_decides_when_a_failed_task_makes_way_and_its_ttl_only_without_one() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let seconds = |moment: Option<Timestamp>| moment.map(|moment| moment.duration_since(start).as_secs());
        for (backoff, ttl, outcome, expected) in [
            (Some("5m"), Some(7200), Outcome::Failed, Some(302)),
            (Some("5m"), Some(1), Outcome::Failed, Some(302)),
            (Some("5m"), None, Outcome::Infrastructure, Some(302)),
            (None, Some(7200), Outcome::Failed, Some(7200)),
            (None, None, Outcome::Failed, None),
            (Some("5m"), Some(7200), Outcome::Cancelled, Some(7200)),
            (Some("5m"), Some(1), Outcome::Stopped, Some(302)),
        ] {
            let rule: FailurePolicy = serde_json::from_value(match backoff {
                Some(wait) => json!({"maxRetriesPerItem": 3, "backoff": {"initial": wait, "max": wait}}),
                None => json!({"maxRetriesPerItem": 3}),
            })
            .unwrap();
            let mut object = json!({
                "metadata": {"name": "a", "uid": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "status": {"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"},
            });
            if let Some(ttl) = ttl {
                object["metadata"]["annotations"] = json!({taskgate_api::keys::TTL: ttl.to_string()});
            }
            let status: WorkItemStatus = serde_json::from_value(json!({
                "consecutiveFailures": 1, "lastFailureTime": "2026-01-01T00:00:00Z", "attempts": [
                    {"uid": "a", "name": "a", "outcome": outcome, "completionTime": "2026-01-01T00:00:00Z"},
                ],
            }))
            .unwrap();
            let context = TaskContext {
                task: &TaskState::of(&object).unwrap(),
                others: &[],
                rule: Some((Mode::Enforce, &rule)),
                work_item: Some("w"),
                item_status: Some(("u", &status)),
                retrying: Retrying::No,
                abandoned: false,
                now: start,
            };
            let due = seconds(due(&context, &status, &rule));
            // A tenth of the wait is jitter.
            let near = |expected: i64| due.is_some_and(|due| (due - expected).abs() <= expected / 10);
            assert!(
                expected.map_or(due.is_none(), near),
                "{backoff:?} {ttl:?} {outcome:?}: {due:?}"
            );
        }
    }

    /// Of creates that race before anything failed, admission marks Jobs: only this action ends those.
    #[test]
    fn a_marked_job_is_stopped_where_there_can_be_one() {
        let task = |name: &str, status: serde_json::Value| {
            let object = json!({
                "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
                    "finalizers": [taskgate_api::keys::ACCOUNTING], "labels": {taskgate_api::keys::WORK_ITEM: "w"}},
                "status": status,
            });
            TaskState::of(&object).unwrap()
        };
        let rule = FailurePolicy {
            max_retries_per_item: 1,
            ..FailurePolicy::default()
        };
        let waiting = task("a", json!({"phase": "Pending"}));
        let running = task("a", json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}));
        let others = [task("b", json!({"phase": "Running"}))];
        let unseen = TaskState {
            has_finalizer: false,
            ..waiting.clone()
        };
        let (failed, nothing): (WorkItemStatus, &[TaskState]) = (WorkItemStatus::default(), &[]);
        for (task, others, item_status, step) in [
            (&waiting, &others[..], None, TaskAction::StopMarked),
            (&waiting, nothing, Some(("u", &failed)), TaskAction::StopMarked),
            (&waiting, nothing, None, TaskAction::Done),
            (&running, &others[..], None, TaskAction::Done),
            (&unseen, &others[..], None, TaskAction::AddFinalizer),
        ] {
            let context = TaskContext {
                task,
                others,
                rule: Some((Mode::Enforce, &rule)),
                work_item: Some("w"),
                item_status,
                retrying: Retrying::No,
                abandoned: false,
                now: Timestamp::UNIX_EPOCH,
            };
            assert_eq!(next_action(&context), step, "{task:?}");
        }
    }
}
