//! Whether a Task's end is recorded, and as what.

use jiff::Timestamp;
use taskgate_api::{
    WorkItemStatus,
    work_item::{Attempt, Outcome},
};

use super::Scene;
use crate::{TaskState, ledger};

/// Whether the Task's end stands in the `WorkItem`, or stood in it before the history was cut.
///
/// The Task's own annotation alone proves nothing where admission may not have seen the Task: its creator can write
/// it. A `WorkItem` that has room in its history and does not list the attempt never had it.
pub(super) fn is_recorded(scene: &Scene<'_>) -> bool {
    let task = scene.task;
    let marked = task.recorded.as_deref();
    scene.memory.is_some_and(|(uid, status)| {
        let cut = status.attempts.len() >= ledger::HISTORY;
        (marked == Some(uid) && cut) || scene.attempt().is_some() || is_older_than_history(task, status, scene.now)
    }) || (task.deleting.is_some() && is_marked_elsewhere(scene))
}

/// Whether the Task's annotation names a `WorkItem` that is not there, and may have been: it was deleted, and with it what it
/// recorded. An active Task has no end that could have been recorded, and what is no UID names nothing.
fn is_marked_elsewhere(scene: &Scene<'_>) -> bool {
    let named = scene.task.recorded.as_deref().filter(|marked| is_uid(marked));
    let there = scene.memory.map(|(uid, _)| uid);
    scene.task.is_terminal() && named.is_some_and(|named| there != Some(named))
}

/// Whether `text` has the form of the UIDs that the API server gives.
fn is_uid(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && text.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-')
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
pub(super) fn is_forgotten(scene: &Scene<'_>) -> bool {
    is_marked_elsewhere(scene) && !is_recorded(scene)
}

impl Scene<'_> {
    /// The Task's own attempt, if the history still has it.
    pub(super) fn attempt(&self) -> Option<&Attempt> {
        let (_, status) = self.memory?;
        status.attempts.iter().find(|attempt| attempt.uid == self.task.uid)
    }

    /// What the Task's end was recorded as.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.attempt().map(|attempt| attempt.outcome)
    }
}
