//! Labels and annotations of Tasks, as far as admission leaves them to the controller: what waits for the tracker is put on
//! the Task once the source reader has the item ([`complete`]), and what was left out is told where people look. Admission
//! writes nothing, so it leaves notes on the Task.

mod late;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use taskgate_api::{keys, metadata::Metadata};

use crate::{context::Context, events, task::Subject};

pub(crate) use late::{Completed, complete, follow_sources};

/// How old a Task may be that is told about: after a restart only the youngest are told about again.
const RECENT: SignedDuration = SignedDuration::from_mins(10);

/// The Tasks that were told about, by UID: when they were created, and the note.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<HashMap<String, (Timestamp, String)>>);

impl Told {
    /// Whether the Task `uid` is to be told about: it is young, and was not told this yet.
    fn first(&self, uid: &str, note: &str, created: Timestamp, now: Timestamp) -> bool {
        let recent = |created: Timestamp| now.duration_since(created) <= RECENT;
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, (created, _)| recent(*created));
        let before = told.insert(uid.to_owned(), (created, note.to_owned()));
        recent(created) && before.is_none_or(|(_, before)| before != note)
    }
}

/// Tells of what was left out of the Task, once.
pub(crate) async fn tell(context: &Context, subject: &Subject) {
    let Some(note) = Metadata::of(&subject.object).annotation(keys::SKIPPED) else {
        return;
    };
    let state = &subject.state;
    if context.told.first(&state.uid, note, state.created, Timestamp::now()) {
        events::left_out(context, subject, note).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_task_is_told_about_once_and_an_old_one_never() {
        let told = Told::default();
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
        let old = now - RECENT - SignedDuration::from_secs(1);
        assert!(told.first("a", "x", now, now));
        assert!(!told.first("a", "x", now, now));
        assert!(told.first("a", "x; y", now, now));
        assert!(told.first("b", "x", now, now));
        assert!(!told.first("c", "x", old, now));
        assert!(told.first("d", "x", now + RECENT * 2, now + RECENT * 2));
        assert_eq!(told.0.lock().unwrap().len(), 1, "the old ones are forgotten");
    }
}
