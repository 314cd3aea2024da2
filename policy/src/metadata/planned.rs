//! The labels and annotations that a Task will have.

use std::collections::BTreeMap;

use serde_json::Value;
use taskgate_api::keys;

use super::Pending;
use crate::{
    kubernetes::{KeyKind, MAX_MESSAGE, clip},
    matching::selectable,
    template::Managed,
};

/// How large the annotations of a Task may grow through policies, in bytes of keys and values. The API server refuses
/// 256 KiB, and Kelos adds its own later.
const MAX_ANNOTATIONS: usize = 128 * 1024;
/// The warning about an annotation that would make them larger.
pub(super) const NO_ROOM: &str = "the Task's annotations would be larger than 128 KiB";

/// What the creator set, and what policies add to it.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Planned {
    /// What `object` has.
    pub(crate) fn of(object: &Value) -> Self {
        let map = |name: &str| {
            let entries = object.pointer(name).and_then(Value::as_object).into_iter().flatten();
            entries
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect()
        };
        Self {
            labels: map("/metadata/labels"),
            annotations: map("/metadata/annotations"),
        }
    }

    /// The labels that policies select by.
    pub(crate) fn selectable(&self, managed: &Managed<'_>) -> BTreeMap<String, String> {
        let labels = self.labels.iter();
        selectable(labels.map(|(key, value)| (key.as_str(), value.as_str())), managed)
    }

    pub(super) fn get(&self, kind: KeyKind, key: &str) -> Option<&str> {
        match kind {
            KeyKind::Label => self.labels.get(key).map(String::as_str),
            KeyKind::Annotation => self.annotations.get(key).map(String::as_str),
        }
    }

    pub(super) fn set(&mut self, kind: KeyKind, key: &str, value: &str) {
        let map = match kind {
            KeyKind::Label => &mut self.labels,
            KeyKind::Annotation => &mut self.annotations,
        };
        map.insert(key.to_owned(), value.to_owned());
    }

    pub(super) fn has_room(&self, kind: KeyKind, key: &str, value: &str) -> bool {
        let size = |(key, value): (&String, &String)| key.len() + value.len();
        kind == KeyKind::Label
            || self.annotations.iter().map(size).sum::<usize>() + key.len() + value.len() <= MAX_ANNOTATIONS
    }

    /// The annotation that lists the values that were left out, for the controller to record an Event. Its present entries are not
    /// repeated, so that a second pass changes nothing.
    pub(super) fn note(&mut self, skipped: &[(&str, String)]) -> Option<(&'static str, String)> {
        let mut note = self
            .get(KeyKind::Annotation, keys::SKIPPED)
            .unwrap_or_default()
            .to_owned();
        for (key, why) in skipped {
            let reason = format!("{key}: {why}");
            if !note.contains(&clip(&reason, MAX_MESSAGE)) {
                let gap = if note.is_empty() { "" } else { "; " };
                note = clip(&format!("{note}{gap}{reason}"), MAX_MESSAGE);
            }
        }
        self.change(keys::SKIPPED, note)
    }

    /// The annotation that lists the keys that are still to be set.
    pub(super) fn wait(&mut self, more: Pending) -> Option<(&'static str, String)> {
        let text = self.get(KeyKind::Annotation, keys::PENDING).unwrap_or_default();
        let pending = Pending::parse(text).and(more);
        self.change(keys::PENDING, pending.to_string())
    }

    fn change(&mut self, key: &'static str, value: String) -> Option<(&'static str, String)> {
        if value.is_empty() || self.get(KeyKind::Annotation, key) == Some(&value) {
            return None;
        }
        self.set(KeyKind::Annotation, key, &value);
        Some((key, value))
    }
}
