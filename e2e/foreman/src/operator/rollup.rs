//! What the children make of their Workload, computed anew each time: no phase is an end (F6, F9, F10).

use crate::condition;
use crate::types::{AgenticTask, WorkloadStatus};

#[derive(Default)]
struct Counts {
    succeeded: usize,
    incomplete: usize,
    failed: usize,
    in_flight: usize,
    resolved: usize,
}

impl Counts {
    fn of(children: &[AgenticTask]) -> Self {
        let mut counts = Self::default();
        for task in children {
            match task.phase() {
                _ if task.is_on_target() => counts.succeeded += 1,
                "Succeeded" if task.verdict() == "Skipped" => {}
                _ if task.is_already_resolved() => counts.resolved += 1,
                "Succeeded" => counts.incomplete += 1,
                "Failed" => counts.failed += 1,
                _ => counts.in_flight += 1,
            }
        }
        counts
    }

    fn told(&self) -> String {
        let Self {
            succeeded,
            incomplete,
            failed,
            in_flight,
            resolved,
        } = self;
        format!(
            "{in_flight} in flight, {succeeded} on target, {incomplete} incomplete, {failed} failed, {resolved} resolved before"
        )
    }
}

/// Writes phase, counts and conditions into the status.
pub(super) fn apply(status: &mut WorkloadStatus, children: &[AgenticTask]) {
    let counts = Counts::of(children);
    status.succeeded_tasks = some(counts.succeeded);
    status.failed_tasks = some(counts.failed);
    status.incomplete_tasks = some(counts.incomplete);
    let conditions = &mut status.conditions;
    let phase = match &counts {
        Counts { in_flight: 1.., .. } => {
            condition::set(conditions, "Dispatched", true, "ChildrenInFlight", counts.told());
            "Dispatched"
        }
        Counts {
            failed: 0,
            incomplete: 0,
            succeeded,
            resolved,
            ..
        } => {
            let nothing_done = *succeeded == 0 && *resolved > 0;
            let reason = if nothing_done {
                "AllAlreadyResolved"
            } else {
                "AllChildrenSucceeded"
            };
            condition::set(conditions, "Completed", true, reason, counts.told());
            "Completed"
        }
        Counts { failed, .. } => {
            let reason = if *failed == 0 {
                "ChildrenIncomplete"
            } else {
                "ChildrenFailed"
            };
            condition::set(conditions, "Completed", false, reason, counts.told());
            "Failed"
        }
    };
    phase.clone_into(&mut status.phase);
    let resolved = counts.resolved > 0;
    let reason = if resolved {
        "AlreadyResolved"
    } else {
        "NoAlreadyResolved"
    };
    condition::set(conditions, "CoderAlreadyResolved", resolved, reason, counts.told());
}

/// Go leaves a zero out.
fn some(count: usize) -> Option<usize> {
    (count > 0).then_some(count)
}
