//! Where Kueue says nothing about a Job: the trap has a name (kueue §5).

use jiff::{SignedDuration, Timestamp};
use taskgate_api::{job::Job, kueue::LocalQueue};

use super::{
    standing::{done, waits},
    state::{Look, QueueReason, QueueScene, QueueState},
};

/// How long Kueue may take to notice a Job before its silence is worth a word. It takes well under a second.
const NOTICED_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// What there is to say of a Job without a Workload.
pub(super) fn without_workload(scene: &QueueScene<'_>, job: Job<'_>) -> Look {
    if job.queue().is_none() {
        return Look::Nothing;
    }
    if job.has_ended() {
        return Look::State(QueueState::ended());
    }
    if !job.is_suspended() {
        let message = "somebody started the Job: it runs outside of any quota";
        return Look::State(done(QueueReason::StartedByHand, message));
    }
    let Some(kueue) = scene.kueue else {
        let message = "Kueue is not installed: the Job stays suspended until it is";
        return Look::State(waits(QueueReason::KueueNotInstalled, message));
    };
    if let Some(trap) = queue_trap(scene, job) {
        return Look::State(trap);
    }
    if !kueue.has_class {
        let class = job.priority_class().unwrap_or_default();
        let message = format!("there is no WorkloadPriorityClass {class}: Kueue passes the Job over until there is");
        return Look::State(waits(QueueReason::UnknownPriorityClass, message));
    }
    let due = noticed_by(scene, job);
    if scene.now < due {
        return Look::Later(due);
    }
    Look::State(if kueue.manages_namespace == Some(false) {
        let message = "Kueue does not manage this namespace (managedJobsNamespaceSelector of its configuration), and will \
                       never start the Job";
        waits(QueueReason::NamespaceNotManaged, message)
    } else {
        let message = "Kueue has not noticed the Job: does its controller run?";
        waits(QueueReason::NotNoticed, message)
    })
}

/// When Kueue ought to have noticed the Job.
pub(super) fn noticed_by(scene: &QueueScene<'_>, job: Job<'_>) -> Timestamp {
    let known = scene.kueue.map(|kueue| kueue.since);
    let from = job.created().max(known).unwrap_or(scene.now);
    from.saturating_add(NOTICED_WITHIN).unwrap_or(Timestamp::MAX)
}

/// What is wrong with the queue that the Job names.
pub(super) fn queue_trap(scene: &QueueScene<'_>, job: Job<'_>) -> Option<QueueState> {
    let name = job.queue()?;
    let Some(queue) = scene.kueue?.local_queue.map(LocalQueue::of) else {
        let message = format!("there is no LocalQueue {name} in this namespace: the Job waits until there is");
        return Some(waits(QueueReason::NoSuchLocalQueue, message));
    };
    if queue.is_held() {
        let message = format!("LocalQueue {name} is stopped (spec.stopPolicy): the Job waits until it is not");
        return Some(waits(QueueReason::LocalQueueHeld, message));
    }
    let inactive = queue.active().filter(|active| active.is_false())?;
    let message = format!("LocalQueue {name} is inactive: {}", inactive.message());
    Some(waits(QueueReason::LocalQueueInactive, message))
}
