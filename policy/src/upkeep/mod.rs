//! What the controller has to do next about one Task: one step at a time, each found anew from what is stored.
//!
//! Nothing is remembered between two steps, so a crash between any two of them loses nothing: the next look finds the
//! same step, or the one after it. The order carries the meaning:
//!
//! * an end is written to the `WorkItem` before anything lets go of the Task;
//! * our own deletion first releases the finalizer and then deletes: whatever is deleted with the finalizer on was
//!   deleted by somebody else, and that is a reset.

mod failed;
mod recorded;
mod ttl;

use jiff::Timestamp;
use taskgate_api::{Mode, WorkItemStatus, task_policy::FailurePolicy, work_item::Outcome};

use self::{
    failed::failed,
    recorded::{is_forgotten, is_recorded},
    ttl::keep_ttl,
};
use crate::{TaskPhase, TaskState, allowance, ledger};

/// Everything that the next step turns on.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The Task.
    pub task: &'a TaskState,
    /// The other Tasks of the item.
    pub others: &'a [TaskState],
    /// The failure section that governs the Task, and how far it may go. `None`: no policy, or it is off.
    pub rule: Option<(Mode, &'a FailurePolicy)>,
    /// The name of the Task's work item; `None` when it belongs to none.
    pub work_item: Option<&'a str>,
    /// The UID and the status of the `WorkItem`, read consistently; `None` when there is none.
    pub memory: Option<(&'a str, &'a WorkItemStatus)>,
    /// What the retry part does with the Task.
    pub retrying: Retrying,
    /// Whether whoever deletes the Task does not mean it: its namespace or its spawner goes as well.
    pub abandoned: bool,
    /// What time it is.
    pub now: Timestamp,
}

/// What the retry part does with a Task that no spawner makes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retrying {
    /// Nothing: no policy retries it.
    #[default]
    No,
    /// It retries the Task, or keeps it as the last one: only it deletes a failed one.
    Keeps,
    /// It is deleting the Task, to make its successor: the deletion is ours.
    Deletes,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing, until something changes.
    Done,
    /// Nothing, until this moment.
    Wait(Timestamp),
    /// Put finalizer and label on the Task.
    Adopt,
    /// Fail the Task's Job: the Task slipped past the breaker.
    Stop,
    /// Fail the Task's Job if admission marked it as one that must not run.
    StopMarked,
    /// Write the Task's end to the `WorkItem`, which is created when it is missing.
    Record,
    /// Note on the Task that its end is recorded.
    Mark,
    /// Forget the item's failures: somebody else deleted the Task.
    Reset,
    /// Write the breaker's state as the policy and the time make it.
    Refresh(Box<WorkItemStatus>),
    /// Take our finalizer off the Task.
    Release,
    /// Delete the Task.
    Delete,
}

/// The next step for the Task of `scene`.
pub fn next_step(scene: &Scene<'_>) -> Step {
    let task = scene.task;
    let kept = scene.retrying != Retrying::No && task.phase == TaskPhase::Failed && task.deleting.is_none();
    let enforced = scene.rule.is_some_and(|(mode, _)| mode == Mode::Enforce);
    match step_of(scene) {
        Step::Delete if kept => Step::Done,
        // It would only be to delete it.
        Step::Release if kept && enforced => Step::Done,
        step => step,
    }
}

fn step_of(scene: &Scene<'_>) -> Step {
    match (scene.rule, scene.work_item) {
        _ if scene.task.deleting.is_some() => deleting(scene),
        (Some((mode, rule)), Some(work_item)) => governed(scene, mode, rule, work_item),
        _ if scene.task.held => Step::Release,
        _ => keep_ttl(scene),
    }
}

/// The Task is being deleted: by somebody else if our finalizer is on, since ours comes off before we delete.
fn deleting(scene: &Scene<'_>) -> Step {
    let task = scene.task;
    if !task.held {
        return Step::Done;
    }
    if scene.abandoned || scene.rule.is_none() || scene.work_item.is_none() {
        return Step::Release;
    }
    if !is_recorded(scene) {
        return Step::Record;
    }
    let cancelled = scene.outcome() == Some(Outcome::Cancelled);
    let ours = scene.retrying == Retrying::Deletes;
    if task.phase == TaskPhase::Failed && !task.deleted_by_kelos_ttl() && !cancelled && !ours {
        let again = scene
            .memory
            .is_some_and(|(_, status)| ledger::reset(status, "TombstoneDeleted", Some(&task.uid), scene.now).is_some());
        if again {
            return Step::Reset;
        }
    }
    Step::Release
}

fn governed(scene: &Scene<'_>, mode: Mode, rule: &FailurePolicy, work_item: &str) -> Step {
    let task = scene.task;
    if mode != Mode::Enforce {
        // Only the memory is kept: no change to the Task.
        return match (task.held, task.is_terminal() && !is_recorded(scene)) {
            (_, true) => Step::Record,
            (true, false) => Step::Release,
            (false, false) => keep_ttl(scene),
        };
    }
    if task.phase == TaskPhase::Active {
        return active(scene, rule, work_item);
    }
    if is_forgotten(scene) && scene.retrying == Retrying::No {
        // The WorkItem was deleted: whoever did it wants a new attempt.
        return match task.phase {
            TaskPhase::Failed if task.held => Step::Release,
            TaskPhase::Failed => Step::Delete,
            _ if task.held => Step::Release,
            _ => keep_ttl(scene),
        };
    }
    if !is_recorded(scene) {
        // A deletion must be seen before the failure is counted.
        let seen = task.held && task.work_item.as_deref() == Some(work_item);
        return if task.phase == TaskPhase::Failed && !seen {
            Step::Adopt
        } else {
            Step::Record
        };
    }
    if task.recorded.is_none() {
        return Step::Mark;
    }
    match task.phase {
        TaskPhase::Failed => failed(scene, rule),
        _ if task.held => Step::Release,
        _ => keep_ttl(scene),
    }
}

/// A Task under way: it is held, and stopped if it slipped past the breaker.
fn active(scene: &Scene<'_>, rule: &FailurePolicy, work_item: &str) -> Step {
    let task = scene.task;
    // An end that is yet to come is recorded nowhere, whatever the Task says.
    let seen = task.held && task.work_item.as_deref() == Some(work_item) && task.recorded.is_none();
    if !seen {
        // First, so that its end is seen.
        return Step::Adopt;
    }
    // Admission marks the Job of one that raced with others, also when nothing has failed yet.
    let marked = !task.started && (scene.memory.is_some() || !scene.others.is_empty());
    let otherwise = if marked { Step::StopMarked } else { Step::Done };
    let Some((_, status)) = scene.memory else {
        return otherwise;
    };
    let before = scene
        .others
        .iter()
        .filter(|other| other.may_still_count(Some(status)) && other.is_before(task));
    let before = u32::try_from(before.count()).unwrap_or(u32::MAX);
    // A running agent is not stopped because a limit was lowered: only what came although the breaker was open, and what
    // has not started.
    let came_after = status.opened_at.as_ref().is_some_and(|opened| task.created > opened.0);
    if before >= allowance(status, rule, scene.now) && (came_after || !task.started) {
        return Step::Stop;
    }
    otherwise
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Of creates that race before anything failed, admission marks Jobs: only this step ends those.
    #[test]
    fn a_job_that_admission_marked_is_looked_for_where_there_can_be_one() {
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
            held: false,
            ..waiting.clone()
        };
        let (failed, nothing): (WorkItemStatus, &[TaskState]) = (WorkItemStatus::default(), &[]);
        for (task, others, memory, step) in [
            (&waiting, &others[..], None, Step::StopMarked),
            (&waiting, nothing, Some(("u", &failed)), Step::StopMarked),
            (&waiting, nothing, None, Step::Done),
            (&running, &others[..], None, Step::Done),
            (&unseen, &others[..], None, Step::Adopt),
        ] {
            let scene = Scene {
                task,
                others,
                rule: Some((Mode::Enforce, &rule)),
                work_item: Some("w"),
                memory,
                retrying: Retrying::No,
                abandoned: false,
                now: Timestamp::UNIX_EPOCH,
            };
            assert_eq!(next_step(&scene), step, "{task:?}");
        }
    }
}
