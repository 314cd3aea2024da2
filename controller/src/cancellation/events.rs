//! The Events of a cancellation, on the Task.

use jiff::Timestamp;
use k8s_openapi::{
    api::events::v1::Event,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams, runtime::events::EventType};
use tracing::debug;

use crate::{context::Context, error::is_conflict, events::reference, task::Subject};

/// The `action` of all of them.
const ACTION: &str = "Cancel";

/// Records an Event that a Task may get several times.
pub(super) fn record(context: &Context, subject: &Subject, reason: &str, note: &str) {
    let regarding = reference(&subject.object);
    context
        .events
        .publish(EventType::Normal, reason, ACTION, note, &regarding);
}

/// Records an Event that a Task gets once, however often and by whichever replica this is called: its name is made of the Task and
/// the reason.
pub(super) async fn record_once(context: &Context, subject: &Subject, type_: EventType, reason: &str, note: &str) {
    // A Task's name may be as long as an Event's.
    let name: String = subject.state.name.chars().take(150).collect();
    let name = name.trim_end_matches(['-', '.']);
    let type_ = match type_ {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{}.{}", subject.state.uid, reason.to_lowercase())),
            namespace: Some(subject.namespace.clone()),
            ..ObjectMeta::default()
        },
        action: Some(ACTION.to_owned()),
        reason: Some(reason.to_owned()),
        note: Some(taskgate_policy::note(note)),
        type_: Some(type_.to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        regarding: Some(reference(&subject.object)),
        reporting_controller: Some("taskgate".to_owned()),
        reporting_instance: Some(context.identity.clone()),
        ..Event::default()
    };
    let events = Api::<Event>::namespaced(context.client.clone(), &subject.namespace);
    match events.create(&PostParams::default(), &event).await {
        Err(error) if !is_conflict(&error) => debug!(%error, reason, "the Event was not recorded"),
        _ => {}
    }
}
