//! A failed Task whose end is recorded: how long it stays.

use jiff::{SignedDuration, Timestamp};
use taskgate_api::{
    WorkItemStatus,
    task_policy::FailurePolicy,
    work_item::{Breaker, Outcome},
};

use super::{Scene, Step, ttl::ttl_end};
use crate::{
    Assessment, TaskPhase, assess,
    backoff::{next_attempt, signed},
    ledger,
};

/// How much later than admission allows a next attempt the old Task is deleted: clocks of replicas differ, and a create
/// that comes too early is denied, which costs a spawner a failed cycle (kelos §4).
const SKEW: SignedDuration = SignedDuration::from_secs(2);

/// Kept as the tombstone, or deleted so that its spawner makes the next one.
pub(super) fn failed(scene: &Scene<'_>, rule: &FailurePolicy) -> Step {
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
        Assessment::Open => match probe_due(status, rule) {
            Some(due) if task.held => refreshed(Step::Wait(due)),
            _ => refreshed(keep),
        },
        Assessment::HalfOpen => {
            if let Some(due) = probe_due(status, rule).filter(|due| *due > scene.now) {
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

/// When the tombstone makes room for a probe. `None`: when somebody resets the item.
fn probe_due(status: &WorkItemStatus, rule: &FailurePolicy) -> Option<Timestamp> {
    let since = status.opened_at.as_ref().or(status.last_failure_time.as_ref())?;
    since.0.checked_add(signed(rule.reset_after?)).ok().map(later)
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

/// When a Task goes whose next attempt is allowed from `moment` on.
fn later(moment: Timestamp) -> Timestamp {
    moment.checked_add(SKEW).unwrap_or(moment)
}
