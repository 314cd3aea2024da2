//! Events under Kelos' reasons (kelos §6.10).

use super::Controller;
use crate::types::Task;
use kube::runtime::events::{Event, EventType, Recorder as Publisher, Reporter};
use kube::{Client, Resource};

/// Publishes Events as `kelos-controller`.
pub(super) struct Recorder(Publisher);

impl Recorder {
    pub(super) fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: "kelos-controller".to_owned(),
            instance: None,
        };
        Self(Publisher::new(client, reporter))
    }
}

impl Controller {
    pub(super) async fn note(&self, task: &Task, reason: &str, note: impl Into<String>) {
        self.publish(task, EventType::Normal, reason, note.into()).await;
    }

    pub(super) async fn warn(&self, task: &Task, reason: &str, note: impl Into<String>) {
        self.publish(task, EventType::Warning, reason, note.into()).await;
    }

    async fn publish(&self, task: &Task, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: reason.to_owned(),
            secondary: None,
        };
        // An Event that is lost changes nothing, as in client-go.
        if let Err(error) = self.events.0.publish(&event, &task.object_ref(&())).await {
            tracing::debug!(reason, %error, "event not published");
        }
    }
}
