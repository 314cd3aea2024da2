//! The labels and annotations that a Task still waits for, as its annotation lists them.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;
use taskgate_api::{keys, metadata::Metadata};

use crate::{kubernetes::KeyKind, matching::Entry};

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
        let keys = self.keys.iter().map(|(kind, key)| format!("{}:{key}", kind.as_str()));
        let words: Vec<_> = keys.chain(self.copy.then(|| COPY.to_owned())).collect();
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
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
