//! The breaker's Events, on the `WorkItem` and on the Task.

use kube::{Resource as _, runtime::events::EventType};
use taskgate_api::WorkItem;

use crate::{
    context::Context,
    events::{publish, reference},
    task::Subject,
};

/// A Task of the item failed, and perhaps tripped the breaker.
pub(super) async fn attempt_failed(context: &Context, subject: &Subject, item: &WorkItem, tripped: bool) {
    let status = item.status.clone().unwrap_or_default();
    let last = status.attempts.last();
    let reason = last.and_then(|attempt| attempt.reason.clone()).unwrap_or_default();
    let cost = status
        .total_cost_usd
        .map(|cost| format!(", cost ${cost} so far"))
        .unwrap_or_default();
    let counted = format!(
        "Task {} ended with {reason}; {} failures in a row{cost}",
        subject.state.name, status.consecutive_failures
    );
    let on_item = item.object_ref(&());
    publish(
        context,
        EventType::Warning,
        "AttemptFailed",
        "Record",
        &counted,
        &on_item,
    )
    .await;
    if tripped {
        let note = format!(
            "no further Task for item {}: {counted}. Reset: delete Task {} or this WorkItem",
            item.spec.item, subject.state.name
        );
        for regarding in [on_item, reference(&subject.object)] {
            publish(context, EventType::Warning, "CircuitOpened", "Open", &note, &regarding).await;
        }
    }
}

/// The deletion of a Task reset the item.
pub(super) async fn tombstone_deleted(context: &Context, subject: &Subject, item: &WorkItem) {
    let note = format!(
        "failures reset: Task {} was deleted, and not by taskgate",
        subject.state.name
    );
    reset(context, EventType::Normal, item, &note).await;
}

/// A reset of the item, or why a user's request for one is not carried out.
pub(super) async fn reset(context: &Context, type_: EventType, item: &WorkItem, note: &str) {
    publish(context, type_, "CircuitReset", "Reset", note, &item.object_ref(&())).await;
}

/// A tripped item was deleted, so that another one can be created.
pub(super) async fn evicted(context: &Context, item: &WorkItem) {
    let note = "this tripped item was deleted: the namespace has as many WorkItems as it may, all of them tripped";
    let regarding = item.object_ref(&());
    publish(
        context,
        EventType::Warning,
        "WorkItemEvicted",
        "Evict",
        note,
        &regarding,
    )
    .await;
}
