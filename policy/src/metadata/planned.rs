//! The labels and annotations that a Task will have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;
use taskgate_api::{keys, metadata::Metadata};

use crate::{
    kubernetes::{KeyKind, MAX_MESSAGE, clip},
    matching::{Entry, selectable},
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
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let map = |kind: KeyKind| kind.entries(Metadata::of(object)).into_iter().map(owned).collect();
        Self {
            labels: map(KeyKind::Label),
            annotations: map(KeyKind::Annotation),
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

/// The word for labels and annotations that have to be copied to the Job.
const COPY: &str = "copy";

/// The keys that a Task still waits for: `label:kelos.dev/priority annotation:kelos.dev/source-title`, or `copy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    keys: BTreeSet<(KeyKind, String)>,
    copy: bool,
}

impl Pending {
    /// Reads the annotation of the Task `object`.
    pub fn of(object: &Value) -> Self {
        Self::parse(Metadata::of(object).annotation(keys::PENDING).unwrap_or_default())
    }

    /// Unknown words are ignored.
    pub(super) fn parse(text: &str) -> Self {
        let mut pending = Self::default();
        for word in text.split(' ') {
            match word.split_once(':') {
                Some(("label", key)) => pending.keys.insert((KeyKind::Label, key.to_owned())),
                Some(("annotation", key)) => pending.keys.insert((KeyKind::Annotation, key.to_owned())),
                _ => {
                    pending.copy |= word == COPY;
                    continue;
                }
            };
        }
        pending
    }

    /// Whether keys wait for the issue source.
    pub fn waits(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether what the Task has has to be copied to its Job.
    pub fn copies(&self) -> bool {
        self.copy
    }

    /// Whether the key of `entry` waits.
    pub(crate) fn has(&self, entry: &Entry) -> bool {
        self.keys.contains(&(entry.kind, entry.key.to_string()))
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        self.keys.insert((entry.kind, entry.key.to_string()));
    }

    /// Both together.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.keys.extend(other.keys);
        self.copy |= other.copy;
        self
    }

    /// What remains once all keys were made, and have to be copied or not.
    pub(super) fn made(self, copy: bool) -> Self {
        Self {
            keys: BTreeSet::new(),
            copy: self.copy || copy,
        }
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|(kind, key)| format!("{kind}:{key}"));
        let words: Vec<_> = keys.chain(self.copy.then(|| COPY.to_owned())).collect();
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod pending_tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written_and_nonsense_is_nothing() {
        for text in ["", "copy", "label:a/b annotation:a/b", "annotation:x copy"] {
            assert_eq!(Pending::parse(text).to_string(), text);
        }
        let odd = Pending::parse("label:a   label:a pod:x job");
        assert_eq!((odd.to_string().as_str(), odd.copies()), ("label:a", false));
        assert_eq!(
            odd.and(Pending::parse("copy label:b")).to_string(),
            "label:a label:b copy"
        );
        assert_eq!(Pending::parse("label:a").made(false), Pending::default());
        assert!(Pending::parse("label:a copy").made(false).copies());
    }
}
