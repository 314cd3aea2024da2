//! How Events are recorded: in the background, so that no reconcile waits for one. Each feature words its own.
//!
//! Imports nothing of this crate. Called by the features, and by `run`, which starts the queue.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tracing::{debug, warn};

/// How many Events may wait; further ones are dropped.
const CAPACITY: usize = 1024;
/// How many are sent in parallel.
const CONCURRENCY: usize = 4;
/// How long the end of the controller may wait for those that are left.
const FLUSH: Duration = Duration::from_secs(2);

/// The Events that wait to be sent. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct EventQueue(mpsc::Sender<(Event, ObjectReference)>);

/// Sends the Events of a queue.
#[derive(Debug)]
pub(crate) struct EventSender(JoinHandle<()>);

impl EventQueue {
    /// Sends Events with `client`, as this replica, until the last clone of the queue is dropped.
    pub(crate) fn start(client: Client, identity: &str) -> (Self, EventSender) {
        let reporter = Reporter {
            controller: "taskgate".into(),
            instance: Some(identity.to_owned()),
        };
        let recorder = Recorder::new(client, reporter);
        let (queue, waiting) = mpsc::channel(CAPACITY);
        let waiting = stream::unfold(
            waiting,
            |mut waiting| async move { Some((waiting.recv().await?, waiting)) },
        );
        let sending = waiting.for_each_concurrent(CONCURRENCY, move |(event, regarding)| {
            let recorder = recorder.clone();
            async move {
                // An Event is for people, and the status says the same.
                if let Err(error) = recorder.publish(&event, &regarding).await {
                    debug!(%error, reason = event.reason, "the Event was not recorded");
                }
            }
        });
        (Self(queue), EventSender(tokio::spawn(sending)))
    }

    /// Queues an Event on `regarding`.
    pub(crate) fn publish(
        &self,
        type_: EventType,
        reason: &str,
        action: &str,
        note: &str,
        regarding: &ObjectReference,
    ) {
        self.publish_related(type_, reason, action, note, (regarding, None));
    }

    /// Queues an Event on `regarding` about what happened to `related`. Kubernetes merges Events into a series that keeps the first
    /// note, unless they differ in reason, action, or one of the two objects.
    pub(crate) fn publish_related(
        &self,
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
        if self.0.try_send((event, regarding.clone())).is_err() {
            warn!(reason, "dropped an Event: {CAPACITY} are waiting already");
        }
    }
}

impl EventSender {
    /// Waits until all Events are sent, once the queue is dropped; not for long.
    pub(crate) async fn flush(mut self) {
        if timeout(FLUSH, &mut self.0).await.is_err() {
            warn!("some Events were not recorded before the end");
            self.0.abort();
        }
    }
}

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
