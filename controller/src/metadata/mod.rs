//! Labels and annotations of Tasks (`metadata`) that admission leaves to the controller: values that only the issue source knows are
//! added once it was read (`deferred`), and values that admission skipped become Events.
//!
//! Imports `source` (observations of items) and the shared modules. Called by `controller`.

mod deferred;

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use kube::runtime::events::EventType;
use parking_lot::Mutex;
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use taskgate_api::{keys, metadata::Metadata};

use crate::{
    context::Context,
    events::reference,
    metrics::{Labels, registered},
    source::Sources,
    task::Subject,
};

pub(crate) use deferred::follow_sources;

/// How old a Task may be that gets the Event: after a restart only the youngest get it again.
const RECENT: SignedDuration = SignedDuration::from_mins(10);

/// The state of this feature beside the Tasks' annotations.
pub(crate) struct MetadataReconciler {
    context: Arc<Context>,
    sources: Arc<Sources>,
    metrics: MetadataMetrics,
    recorded: RecordedNotes,
}

impl MetadataReconciler {
    pub(crate) fn new(context: Arc<Context>, sources: Arc<Sources>, metrics: MetadataMetrics) -> Self {
        Self {
            context,
            sources,
            metrics,
            recorded: RecordedNotes::default(),
        }
    }

    /// Records an Event for the values that admission skipped, once per Task and note.
    pub(crate) fn record_skipped(&self, subject: &Subject) {
        let Some(note) = Metadata::of(&subject.object).annotation(keys::SKIPPED) else {
            return;
        };
        let state = &subject.state;
        if self
            .recorded
            .is_new(&state.uid, note, state.created, self.context.now())
        {
            record_skipped(&self.context, subject, note);
        }
    }
}

fn record_skipped(context: &Context, subject: &Subject, note: &str) {
    let note = format!("left out of labels and annotations: {note}");
    let (warning, regarding) = (EventType::Warning, reference(&subject.object));
    let events = &context.events;
    events.publish(warning, "MetadataSkipped", "Label", &note, &regarding);
}

/// The Tasks that got an Event, by UID: when they were created, and the note.
#[derive(Debug, Default)]
struct RecordedNotes(Mutex<HashMap<String, (Timestamp, String)>>);

impl RecordedNotes {
    /// Whether the Task `uid` gets the Event: it is young, and did not get this note yet.
    fn is_new(&self, uid: &str, note: &str, created: Timestamp, now: Timestamp) -> bool {
        let recent = |created: Timestamp| now.duration_since(created) <= RECENT;
        let mut recorded = self.0.lock();
        recorded.retain(|_, (created, _)| recent(*created));
        let before = recorded.insert(uid.to_owned(), (created, note.to_owned()));
        recent(created) && before.is_none_or(|(_, before)| before != note)
    }
}

/// The metrics of this feature. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct MetadataMetrics {
    /// By `result`.
    completed: Family<Labels<1>, Counter>,
}

impl MetadataMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        Self {
            completed: registered(
                registry,
                "metadata_completed",
                "Tasks that got the labels and annotations that waited for the issue source; skipped: not all of them",
            ),
        }
    }

    /// A Task got the values that waited for its source, or some of them.
    fn completed(&self, skipped: bool) {
        let result = if skipped { "skipped" } else { "set" };
        self.completed.get_or_create(&[("result", result)]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_task_gets_each_note_once_and_an_old_one_none() {
        let recorded = RecordedNotes::default();
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
        let old = now - RECENT - SignedDuration::from_secs(1);
        assert!(recorded.is_new("a", "x", now, now));
        assert!(!recorded.is_new("a", "x", now, now));
        assert!(recorded.is_new("a", "x; y", now, now));
        assert!(recorded.is_new("b", "x", now, now));
        assert!(!recorded.is_new("c", "x", old, now));
        assert!(recorded.is_new("d", "x", now + RECENT * 2, now + RECENT * 2));
        assert_eq!(recorded.0.lock().len(), 1, "old Tasks are removed");
    }
}
