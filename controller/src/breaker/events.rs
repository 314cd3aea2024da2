//! The breaker's Events, on the `WorkItem` and on the Task.

use kube::{Resource as _, ResourceExt as _, runtime::events::EventType};
use taskgate_api::WorkItem;
use taskgate_policy::counted;

use crate::{context::Context, events::reference, task::Subject};

/// A Task of the item failed, and perhaps tripped the breaker.
pub(super) fn attempt_failed(context: &Context, subject: &Subject, item: &WorkItem, tripped: bool) {
    let status = item.status.clone().unwrap_or_default();
    let last = status.attempts.last();
    let reason = last.and_then(|attempt| attempt.reason.clone()).unwrap_or_default();
    let cost = status
        .total_cost_usd
        .map(|cost| format!(", cost ${cost} so far"))
        .unwrap_or_default();
    let (task, failures) = (&subject.state.name, status.consecutive_failures);
    let told = format!(
        "Task {task} ended with {reason}; {} in a row{cost}",
        counted(failures, "failure")
    );
    let warn = |reason, action, note: &str, regarding| {
        context
            .events
            .publish(EventType::Warning, reason, action, note, &regarding);
    };
    warn("AttemptFailed", "Record", &told, item.object_ref(&()));
    if tripped {
        let note = format!(
            "no further Task for item {}: {told}. Reset: taskgate reset {} -n {}",
            item.spec.item,
            item.name_any(),
            item.namespace().unwrap_or_default()
        );
        for regarding in [item.object_ref(&()), reference(&subject.object)] {
            warn("CircuitOpened", "Open", &note, regarding);
        }
    }
}

/// The deletion of a Task reset the item.
pub(super) fn tombstone_deleted(context: &Context, subject: &Subject, item: &WorkItem) {
    let task = &subject.state.name;
    let note = format!("failures reset: Task {task} was deleted, and not by taskgate");
    reset(context, EventType::Normal, item, &note);
}

/// A reset of the item, or why a user's request for one is not carried out.
pub(super) fn reset(context: &Context, type_: EventType, item: &WorkItem, note: &str) {
    let regarding = item.object_ref(&());
    context.events.publish(type_, "CircuitReset", "Reset", note, &regarding);
}

/// A tripped item was deleted, so that another one can be created.
pub(super) fn evicted(context: &Context, item: &WorkItem) {
    let note = "this tripped item was deleted: the namespace has as many WorkItems as it may, all of them tripped";
    let regarding = item.object_ref(&());
    context
        .events
        .publish(EventType::Warning, "WorkItemEvicted", "Evict", note, &regarding);
}
