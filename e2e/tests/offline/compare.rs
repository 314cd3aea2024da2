//! Both answers to each write, side by side.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;
use taskgate_e2e::AuditEvent;

use crate::{answer::Answer, differential::Sample, send::Said};

/// The comparison of all writes.
#[derive(Default)]
pub(crate) struct Comparison {
    writes: usize,
    /// How many writes ended how.
    verdicts: BTreeMap<String, usize>,
    /// Each with both answers.
    pub(crate) differences: Vec<String>,
}

impl Comparison {
    /// `answered` by the API server, `decided` by `taskgate check`.
    pub(crate) fn of(
        samples: &[Sample],
        answered: &[(usize, Said, AuditEvent)],
        decided: &[Value],
    ) -> anyhow::Result<Self> {
        let mut comparison = Self::default();
        for (number, answered, event) in answered {
            let server = Answer::of_server(answered.status, &answered.headers, &answered.body, event)?;
            let check = Answer::of_check(&decided[*number])?;
            comparison.add(*number, &samples[*number], &server.timeless(), &check.timeless());
        }
        Ok(comparison)
    }

    fn add(&mut self, number: usize, sample: &Sample, server: &Answer, check: &Answer) {
        let Sample {
            namespace,
            user,
            old,
            object,
        } = sample;
        let kind = object["kind"].as_str().unwrap_or_default();
        let operation = if sample.is_update() { "changed" } else { "made" };
        let sent = if server.calls.is_empty() {
            "without a mutating call"
        } else {
            "sent"
        };
        let changed = if server.calls.iter().any(|(_, patch)| !patch.is_null()) {
            ", changed"
        } else {
            ""
        };
        let warned = if server.warnings.is_empty() { "" } else { ", warned" };
        let verdict = format!("{kind} {operation}, {}, {sent}{changed}{warned}", server.verdict);
        *self.verdicts.entry(verdict).or_default() += 1;
        self.writes += 1;
        if server != check {
            self.differences.push(format!(
                "write {number}, {user:?} in {namespace}: {old} → {object}\n  API server: {server:?}\n  check: {check:?}"
            ));
        }
    }

    /// The first differences.
    pub(crate) fn shown(&self) -> String {
        let first: Vec<_> = self.differences.iter().take(5).map(String::as_str).collect();
        format!(
            "{} differences, the first:\n{}",
            self.differences.len(),
            first.join("\n")
        )
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (verdict, count) in &self.verdicts {
            writeln!(f, "{count:6} {verdict}")?;
        }
        write!(f, "{} differences of {}", self.differences.len(), self.writes)
    }
}
