//! Whether a Task's end is recorded, and as what.

use jiff::Timestamp;
use taskgate_api::{
    WorkItemStatus,
    work_item::{Attempt, Outcome},
};

use super::Scene;
use crate::{TaskState, ledger};

/// Whether the Task's end stands in the `WorkItem`, or stood in it before the history was cut.
pub(super) fn is_recorded(scene: &Scene<'_>) -> bool {
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
pub(super) fn is_forgotten(scene: &Scene<'_>) -> bool {
    scene.task.recorded.is_some() && !is_recorded(scene)
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
