//! What people are told where they look: Events on the `WorkItem` and on the Task.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Resource as _,
    runtime::events::{Event, EventType},
};
use serde_json::Value;
use taskgate_api::WorkItem;
use tracing::debug;

use crate::{context::Context, task::Subject};

/// A Task of the item failed.
pub(crate) async fn failed(context: &Context, subject: &Subject, item: &WorkItem, opened: bool) {
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
    publish(
        context,
        EventType::Warning,
        "AttemptFailed",
        "Record",
        &counted,
        &item.object_ref(&()),
    )
    .await;
    if opened {
        let note = format!(
            "no further Task for item {}: {counted}. Reset: delete Task {} or this WorkItem",
            item.spec.item, subject.state.name
        );
        // People look at either.
        for regarding in [item.object_ref(&()), task_ref(subject)] {
            publish(context, EventType::Warning, "CircuitOpened", "Open", &note, &regarding).await;
        }
    }
}

/// The item's failures are forgotten.
pub(crate) async fn reset(context: &Context, subject: &Subject, item: &WorkItem) {
    let note = format!(
        "failures forgotten: Task {} was deleted by somebody else than taskgate",
        subject.state.name
    );
    publish(
        context,
        EventType::Normal,
        "CircuitReset",
        "Reset",
        &note,
        &item.object_ref(&()),
    )
    .await;
}

/// The item changed at its source: its failures are forgotten.
pub(crate) async fn changed(context: &Context, item: &WorkItem) {
    let note = format!(
        "failures forgotten: item {} changed at its source (failurePolicy.resetOnChange)",
        item.spec.item
    );
    let regarding = item.object_ref(&());
    publish(context, EventType::Normal, "CircuitReset", "Reset", &note, &regarding).await;
}

/// The item is gone from its source, and its memory with it.
pub(crate) async fn pruned(context: &Context, item: &WorkItem) {
    let note = format!(
        "forgotten: the spawner no longer finds item {}, which is gone, closed or filtered out at its source",
        item.spec.item
    );
    let regarding = item.object_ref(&());
    publish(context, EventType::Normal, "WorkItemPruned", "Prune", &note, &regarding).await;
}

/// A Task that slipped past the breaker was stopped.
pub(crate) async fn stopped(context: &Context, subject: &Subject, why: &str) {
    publish(
        context,
        EventType::Warning,
        "TaskStopped",
        "Stop",
        why,
        &task_ref(subject),
    )
    .await;
}

/// A label or annotation was left out of the Task.
pub(crate) async fn left_out(context: &Context, subject: &Subject, note: &str) {
    let note = format!("left out of labels and annotations: {note}");
    let regarding = task_ref(subject);
    publish(
        context,
        EventType::Warning,
        "MetadataSkipped",
        "Label",
        &note,
        &regarding,
    )
    .await;
}

/// A memory had to make room for another.
pub(crate) async fn evicted(context: &Context, item: &WorkItem) {
    let note = "this open item was forgotten: the namespace has as many WorkItems as it may, all of them open";
    publish(
        context,
        EventType::Warning,
        "WorkItemEvicted",
        "Evict",
        note,
        &item.object_ref(&()),
    )
    .await;
}

/// A reference to `object`, whose kind is no type here.
pub(crate) fn reference(object: &Value) -> ObjectReference {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(ToOwned::to_owned);
    ObjectReference {
        api_version: text("/apiVersion"),
        kind: text("/kind"),
        name: text("/metadata/name"),
        namespace: text("/metadata/namespace"),
        uid: text("/metadata/uid"),
        ..ObjectReference::default()
    }
}

pub(crate) fn task_ref(subject: &Subject) -> ObjectReference {
    let text = |field: &str| subject.object.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
    ObjectReference {
        api_version: text("apiVersion"),
        kind: text("kind"),
        name: Some(subject.state.name.clone()),
        namespace: Some(subject.namespace.clone()),
        uid: Some(subject.state.uid.clone()),
        ..ObjectReference::default()
    }
}

/// An Event that cannot be written is no reason to stop: it is for people, and they have the status too.
pub(crate) async fn publish(
    context: &Context,
    type_: EventType,
    reason: &str,
    action: &str,
    note: &str,
    regarding: &ObjectReference,
) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(taskgate_policy::note(note)),
        action: action.to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, regarding).await {
        debug!(%error, reason, "no Event");
    }
}
