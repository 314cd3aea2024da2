//! How Events are recorded. Each feature words its own.
//!
//! Imports `context`. Called by the features.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use serde_json::Value;
use tracing::debug;

use crate::context::Context;

/// A reference to `object`, whose kind is known at run time only.
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

/// Records an Event on `regarding`. An error ends no reconcile: an Event is for people, and the status says the same.
pub(crate) async fn publish(
    context: &Context,
    type_: EventType,
    reason: &str,
    action: &str,
    note: &str,
    regarding: &ObjectReference,
) {
    publish_related(context, type_, reason, action, note, (regarding, None)).await;
}

/// Records an Event on `regarding` about what happened to `related`. Kubernetes merges Events into a series that keeps the first note,
/// unless they differ in reason, action, or one of the two objects.
pub(crate) async fn publish_related(
    context: &Context,
    type_: EventType,
    reason: &str,
    action: &str,
    note: &str,
    (regarding, related): (&ObjectReference, Option<&ObjectReference>),
) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(taskgate_policy::note(note)),
        action: action.to_owned(),
        secondary: related.cloned(),
    };
    if let Err(error) = context.recorder.publish(&event, regarding).await {
        debug!(%error, reason, "the Event was not recorded");
    }
}
