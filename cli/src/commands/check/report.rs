//! The report of a check, before it is formatted.

use std::borrow::Cow;

use serde::Serialize;
use taskgate_offline::{
    DuplicateField, Evaluation, SourceLocation, UnreadableDocument, WriteVerdict, cluster_state::RejectedPolicy,
};

use super::spawner::SpawnerReport;
use crate::exit::ExitStatus;

/// The report of a check.
#[derive(Debug, Default)]
pub(super) struct CheckReport {
    /// The evaluated objects, in the order of the documents.
    pub(super) entries: Vec<EvaluatedObject>,
    /// The TaskSpawners with policy fields.
    pub(super) spawners: Vec<SpawnerReport>,
    /// The documents that could not be read.
    pub(super) unreadable: Vec<UnreadableDocument>,
    /// The fields that documents set more than once.
    pub(super) duplicates: Vec<DuplicateField>,
    /// The policies that are not in force.
    pub(super) left_out: Vec<RejectedPolicy>,
    /// What is not known about the cluster.
    pub(super) notes: Vec<String>,
    /// How many objects are of kinds that the webhooks do not select.
    pub(super) other_kinds: usize,
}

/// An object and its evaluation.
#[derive(Debug, Serialize)]
pub(super) struct EvaluatedObject {
    #[serde(flatten)]
    pub(super) place: SourceLocation,
    #[serde(flatten)]
    pub(super) judgement: Evaluation,
}

/// A problem of a document or an object, for CI systems.
pub(super) struct CheckProblem<'a> {
    /// `unreadable`, `warning`, or the verdict.
    pub(super) rule: String,
    /// `error` or `warning`.
    pub(super) level: &'static str,
    pub(super) file: &'a str,
    pub(super) line: usize,
    /// As `Task team-a/fixer-42`; `None` where it is unreadable.
    pub(super) object: Option<String>,
    pub(super) message: Cow<'a, str>,
}

/// The counts of a report.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckSummary {
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

/// The report for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data<'a> {
    summary: CheckSummary,
    objects: &'a [EvaluatedObject],
    unreadable: &'a [UnreadableDocument],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    duplicates: &'a [DuplicateField],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    spawners: &'a [SpawnerReport],
    left_out: &'a [RejectedPolicy],
    notes: &'a [String],
}

impl CheckReport {
    /// Every problem: unreadable documents, fields that are set more than once, refused objects, warnings.
    pub(super) fn problems<'a>(&'a self) -> Vec<CheckProblem<'a>> {
        let unreadable = self.unreadable.iter().map(|bad| CheckProblem {
            rule: "unreadable".to_owned(),
            level: "error",
            file: &bad.file,
            line: bad.line.unwrap_or(1),
            object: None,
            message: Cow::Borrowed(&bad.message),
        });
        let duplicates = self.duplicates.iter().map(|duplicate| CheckProblem {
            rule: "warning".to_owned(),
            level: "warning",
            file: &duplicate.location.file,
            line: duplicate.location.line,
            object: None,
            message: Cow::Owned(duplicate.to_string()),
        });
        let spawners = self.spawners.iter().filter_map(|spawner| {
            Some(CheckProblem {
                rule: "warning".to_owned(),
                level: "warning",
                file: &spawner.place.file,
                line: spawner.place.line,
                object: Some(spawner.object.clone()),
                message: Cow::Borrowed(spawner.warning.as_deref()?),
            })
        });
        let mut problems: Vec<_> = unreadable.chain(duplicates).chain(spawners).collect();
        for EvaluatedObject { place, judgement } in &self.entries {
            let problem = |rule: String, level, message: &'a str| CheckProblem {
                rule,
                level,
                file: &place.file,
                line: place.line,
                object: Some(judgement.title()),
                message: Cow::Borrowed(message),
            };
            if judgement.verdict.is_rejection() {
                let message = judgement.message.as_deref().unwrap_or_default();
                problems.push(problem(judgement.verdict.to_string(), "error", message));
            }
            let warnings = judgement.warnings.iter();
            problems.extend(warnings.map(|warning| problem("warning".to_owned(), "warning", warning)));
        }
        problems
    }

    /// Adds the policies that are not in force, except those that the report has as refused.
    pub(super) fn leave_out(&mut self, policies: &[RejectedPolicy]) {
        let entries = self.entries.iter();
        let refused = entries.filter(|entry| entry.judgement.verdict.is_rejection());
        let reported: Vec<_> = refused.map(|entry| entry.judgement.title()).collect();
        let policies = policies.iter().filter(|left_out| !reported.contains(&left_out.policy));
        self.left_out = policies.cloned().collect();
    }

    pub(super) fn summary(&self) -> CheckSummary {
        let count = |verdict| {
            let entries = self.entries.iter();
            entries.filter(|entry| entry.judgement.verdict == verdict).count()
        };
        let passed = |entry: &&EvaluatedObject| !entry.judgement.verdict.is_rejection();
        let changed = |entry: &&EvaluatedObject| !entry.judgement.changes.is_empty();
        let warned = |entry: &&EvaluatedObject| !entry.judgement.warnings.is_empty();
        CheckSummary {
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

    pub(super) fn status(&self) -> ExitStatus {
        let refused = self.entries.iter().any(|entry| entry.judgement.verdict.is_rejection());
        let warned = self.entries.iter().any(|entry| !entry.judgement.warnings.is_empty())
            || self.spawners.iter().any(|spawner| spawner.warning.is_some());
        if refused || !self.unreadable.is_empty() {
            ExitStatus::Failure
        } else if warned || !self.duplicates.is_empty() || !self.left_out.is_empty() || !self.notes.is_empty() {
            ExitStatus::Warnings
        } else {
            ExitStatus::Success
        }
    }

    pub(super) fn as_data(&self) -> Data<'_> {
        Data {
            summary: self.summary(),
            objects: &self.entries,
            unreadable: &self.unreadable,
            duplicates: &self.duplicates,
            spawners: &self.spawners,
            left_out: &self.left_out,
            notes: &self.notes,
        }
    }
}
