//! What the controller has to do next about one Task: one step at a time, each found anew from what is stored.
//!
//! Nothing is remembered between two steps, so a crash between any two of them loses nothing: the next look finds the
//! same step, or the one after it. The order carries the meaning:
//!
//! * an end is written to the `WorkItem` before anything lets go of the Task;
//! * our own deletion first releases the finalizer and then deletes: whatever is deleted with the finalizer on was
//!   deleted by somebody else, and that is a reset.

use jiff::{SignedDuration, Timestamp};
use taskgate_api::{
    Mode, WorkItemStatus,
    task_policy::FailurePolicy,
    work_item::{Attempt, Breaker, Outcome},
};

use crate::{
    Assessment, TaskPhase, TaskState, allowance, assess,
    backoff::{next_attempt, signed},
    ledger,
};

/// How much later than admission allows a next attempt the old Task is deleted: clocks of replicas differ, and a create
/// that comes too early is denied, which costs a spawner a failed cycle (kelos §4).
const SKEW: SignedDuration = SignedDuration::from_secs(2);

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
    let seen = task.held && task.work_item.as_deref() == Some(work_item);
    let Some((_, status)) = scene.memory else {
        return if seen { Step::Done } else { Step::Adopt };
    };
    let before = scene
        .others
        .iter()
        .filter(|other| other.may_still_count(Some(status)) && other.is_before(task));
    let before = u32::try_from(before.count()).unwrap_or(u32::MAX);
    // Nobody's running agent is stopped because a limit was lowered: only what came although the breaker was open, what
    // has not started, and what admission never saw.
    let came_after = status.opened_at.as_ref().is_some_and(|opened| task.created > opened.0);
    if before >= allowance(status, rule, scene.now) && (came_after || !task.started || !task.held) {
        // Adopted first, so that its end is seen.
        return if seen { Step::Stop } else { Step::Adopt };
    }
    if seen { Step::Done } else { Step::Adopt }
}

/// A failed Task whose end is recorded: kept as the tombstone, or deleted so that its spawner makes the next one.
fn failed(scene: &Scene<'_>, rule: &FailurePolicy) -> Step {
    let task = scene.task;
    let Some((_, status)) = scene.memory else {
        return Step::Done;
    };
    let delete = if task.held { Step::Release } else { Step::Delete };
    let refreshed = |otherwise: Step| {
        ledger::refresh(status, Some(rule), scene.now).map_or(otherwise, |status| Step::Refresh(Box::new(status)))
    };
    // Should a crash have come between release and deletion, and the policy changed meanwhile: hold it again.
    let keep = if task.held { Step::Done } else { Step::Adopt };
    match assess(status, rule, scene.now) {
        Assessment::Open => {
            let since = status.opened_at.as_ref().or(status.last_failure_time.as_ref());
            let until = rule
                .reset_after
                .zip(since)
                .and_then(|(wait, since)| since.0.checked_add(signed(wait)).ok());
            match until {
                Some(until) if task.held => refreshed(Step::Wait(later(until))),
                _ => refreshed(keep),
            }
        }
        Assessment::HalfOpen => {
            let since = status.opened_at.as_ref().or(status.last_failure_time.as_ref());
            let due = rule
                .reset_after
                .zip(since)
                .and_then(|(wait, since)| since.0.checked_add(signed(wait)).ok())
                .map(later);
            if let Some(due) = due.filter(|due| *due > scene.now) {
                return if task.held { Step::Wait(due) } else { keep };
            }
            // One probe at a time: the latest tombstone makes room for it, the others stay.
            let latest = !scene
                .others
                .iter()
                .any(|other| other.phase == TaskPhase::Failed && other.deleting.is_none() && task.is_before(other));
            let probing = scene.others.iter().any(|other| other.may_still_count(Some(status)));
            if latest && !probing {
                refreshed(delete)
            } else {
                refreshed(keep)
            }
        }
        Assessment::Closed => {
            let opened = scene
                .attempt()
                .is_some_and(|attempt| attempt.opened || attempt.outcome == Outcome::Stopped);
            let forgotten = status.consecutive_failures == 0 && status.infrastructure_failures == 0;
            if opened && forgotten && status.breaker != Some(Breaker::Open) {
                return delete;
            }
            match due(scene, status, rule) {
                Some(due) if due <= scene.now => refreshed(delete),
                Some(due) if task.held => refreshed(Step::Wait(due)),
                _ => refreshed(keep),
            }
        }
    }
}

/// When a failed Task below the limit is deleted: after its TTL, or the backoff, whichever is later. `None`: never, as
/// Kelos would keep it.
fn due(scene: &Scene<'_>, status: &WorkItemStatus, rule: &FailurePolicy) -> Option<Timestamp> {
    let ttl = if scene.task.makes_room {
        Some(scene.task.created)
    } else {
        ttl_end(scene, scene.task.kept_ttl.or(scene.task.spec_ttl))
    };
    let next = next_attempt(status, rule).map(later);
    ttl.max(next)
}

/// The TTL that admission moved aside, for Tasks that nothing else is to be done about: as Kelos would have done it.
fn keep_ttl(scene: &Scene<'_>) -> Step {
    match ttl_end(scene, scene.task.kept_ttl) {
        None => Step::Done,
        Some(end) if end > scene.now => Step::Wait(end),
        Some(_) => Step::Delete,
    }
}

fn ttl_end(scene: &Scene<'_>, ttl: Option<u32>) -> Option<Timestamp> {
    let task = scene.task;
    let ttl = ttl.filter(|_| task.is_terminal())?;
    let recorded = scene.attempt().and_then(|attempt| attempt.completion_time.as_ref());
    let ended = task.ttl_start(recorded.map(|time| time.0), scene.now);
    ended.checked_add(SignedDuration::from_secs(i64::from(ttl))).ok()
}

fn later(moment: Timestamp) -> Timestamp {
    moment.checked_add(SKEW).unwrap_or(moment)
}

/// Whether the Task's end stands in the `WorkItem`, or stood in it before the history was cut.
fn is_recorded(scene: &Scene<'_>) -> bool {
    let task = scene.task;
    let marked = task.recorded.as_deref();
    scene.memory.is_some_and(|(uid, status)| {
        marked == Some(uid) || scene.attempt().is_some() || is_older_than_history(task, status, scene.now)
    }) || (task.deleting.is_some() && marked.is_some())
}

/// Whether the Task ended before everything that a full history remembers: it stood there, and was cut. Where Tasks are
/// only observed, and so bear no mark, this keeps an old one from being counted again.
fn is_older_than_history(task: &TaskState, status: &WorkItemStatus, now: Timestamp) -> bool {
    let oldest = status
        .attempts
        .first()
        .and_then(|attempt| attempt.completion_time.as_ref());
    task.is_terminal()
        && status.attempts.len() >= ledger::HISTORY
        && oldest.is_some_and(|oldest| task.ended_by(task.created, now) < oldest.0)
}

/// Whether the Task's end was recorded in a `WorkItem` that exists no longer.
fn is_forgotten(scene: &Scene<'_>) -> bool {
    scene.task.recorded.is_some() && !is_recorded(scene)
}

impl Scene<'_> {
    /// The Task's own attempt, if the history still has it.
    fn attempt(&self) -> Option<&Attempt> {
        let (_, status) = self.memory?;
        status.attempts.iter().find(|attempt| attempt.uid == self.task.uid)
    }

    /// What the Task's end was recorded as.
    fn outcome(&self) -> Option<Outcome> {
        self.attempt().map(|attempt| attempt.outcome)
    }
}
