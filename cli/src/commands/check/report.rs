//! What a check found, before it takes a form.

use serde::Serialize;
use taskgate_offline::{Evaluation, SourceLocation, UnreadableDocument, WriteVerdict, cluster_state::RejectedPolicy};

use crate::commands::Outcome;

/// Everything that a check found.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What became of each object, in the order of the documents.
    pub(super) entries: Vec<Entry>,
    /// What could not be read.
    pub(super) unreadable: Vec<UnreadableDocument>,
    /// The policies that are not in force.
    pub(super) left_out: Vec<RejectedPolicy>,
    /// What is not known of the cluster.
    pub(super) notes: Vec<String>,
    /// How many objects are of kinds that no rule names.
    pub(super) other_kinds: usize,
    /// How many documents in folders are no objects.
    pub(super) foreign: usize,
}

/// One object and what became of it.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) place: SourceLocation,
    #[serde(flatten)]
    pub(super) judgement: Evaluation,
}

/// How many of each.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    pub(super) objects: usize,
    pub(super) allowed: usize,
    pub(super) changed: usize,
    pub(super) warned: usize,
    pub(super) denied: usize,
    pub(super) invalid: usize,
    pub(super) failed: usize,
    pub(super) not_sent: usize,
    pub(super) unreadable: usize,
    pub(super) other_kinds: usize,
}

/// The report as programs get it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data<'a> {
    summary: Summary,
    objects: &'a [Entry],
    unreadable: &'a [UnreadableDocument],
    left_out: &'a [RejectedPolicy],
    notes: &'a [String],
}

impl Report {
    /// Adds what was found in other documents.
    pub(super) fn extend(&mut self, other: Self) {
        let Self {
            entries,
            unreadable,
            left_out,
            notes,
            other_kinds,
            foreign,
        } = other;
        self.entries.extend(entries);
        self.unreadable.extend(unreadable);
        self.left_out.extend(left_out);
        self.notes.extend(notes);
        self.other_kinds += other_kinds;
        self.foreign += foreign;
    }

    /// Takes note of the policies that are not in force, but for those that were told to be refused.
    pub(super) fn leave_out(&mut self, policies: &[RejectedPolicy]) {
        let entries = self.entries.iter();
        let refused = entries.filter(|entry| entry.judgement.verdict.is_rejection());
        let told: Vec<_> = refused.map(|entry| entry.judgement.title()).collect();
        let policies = policies.iter().filter(|left_out| !told.contains(&left_out.policy));
        self.left_out = policies.cloned().collect();
    }

    pub(super) fn summary(&self) -> Summary {
        let count = |verdict| {
            let entries = self.entries.iter();
            entries.filter(|entry| entry.judgement.verdict == verdict).count()
        };
        let passed = |entry: &&Entry| !entry.judgement.verdict.is_rejection();
        let changed = |entry: &&Entry| !entry.judgement.changes.is_empty();
        let warned = |entry: &&Entry| !entry.judgement.warnings.is_empty();
        Summary {
            objects: self.entries.len(),
            allowed: count(WriteVerdict::Allowed),
            changed: self.entries.iter().filter(passed).filter(changed).count(),
            warned: self.entries.iter().filter(passed).filter(warned).count(),
            denied: count(WriteVerdict::Denied),
            invalid: count(WriteVerdict::Invalid),
            failed: count(WriteVerdict::Failed),
            not_sent: count(WriteVerdict::NotSent),
            unreadable: self.unreadable.len(),
            other_kinds: self.other_kinds,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        let refused = self.entries.iter().any(|entry| entry.judgement.verdict.is_rejection());
        let warned = self.entries.iter().any(|entry| !entry.judgement.warnings.is_empty());
        if refused || !self.unreadable.is_empty() {
            Outcome::Denied
        } else if warned || !self.left_out.is_empty() || !self.notes.is_empty() {
            Outcome::Warned
        } else {
            Outcome::Fine
        }
    }

    pub(super) fn as_data(&self) -> Data<'_> {
        Data {
            summary: self.summary(),
            objects: &self.entries,
            unreadable: &self.unreadable,
            left_out: &self.left_out,
            notes: &self.notes,
        }
    }
}
