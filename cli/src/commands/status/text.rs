//! The report for people.

use jiff::Timestamp;
use taskgate_policy::clip;

use super::report::{ItemLine, PolicyLine, RetryLine, StatusReport, StatusSection, TaskLine};
use crate::{
    commands::snapshot::DisplayState,
    output::{age, table},
};

/// The longest text in a table, in characters. JSON and YAML have the whole text.
const MAX_WHY: usize = 160;

/// `report` as sections of tables; ages are as of `now`.
pub(super) fn text(report: &StatusReport, now: Timestamp) -> String {
    let columns = Columns {
        namespaces: report.namespace.is_none(),
        now,
    };
    [
        columns.policies(&report.policies),
        columns.tasks(&report.tasks, report.ungoverned_tasks),
        columns.items(&report.open_items, report.closed_items),
        columns.retries(&report.retries),
    ]
    .join("\n")
}

/// Formats entries as rows.
struct Columns {
    namespaces: bool,
    now: Timestamp,
}

impl Columns {
    fn policies(&self, section: &StatusSection<PolicyLine>) -> String {
        let row = |policy: &PolicyLine| {
            let tasks = policy.tasks.map_or_else(unknown, |tasks| tasks.to_string());
            let mode = policy.mode.clone().unwrap_or_else(unknown);
            let problem = policy.problem.as_deref().unwrap_or_default();
            self.row(
                policy.namespace.as_deref(),
                [policy.name.clone(), mode, tasks, clip(problem, MAX_WHY)],
            )
        };
        self.section(
            "Policies",
            &section.entries.len().to_string(),
            section,
            &["NAME", "MODE", "TASKS", "PROBLEM"],
            &section.entries.iter().map(row).collect::<Vec<_>>(),
        )
    }

    /// Tasks that succeeded are only counted.
    fn tasks(&self, section: &StatusSection<TaskLine>, ungoverned: usize) -> String {
        let succeeded = |task: &&TaskLine| task.state == DisplayState::Phase("Succeeded".to_owned());
        let (done, listed): (Vec<_>, Vec<_>) = section.entries.iter().partition(succeeded);
        let row = |task: &&TaskLine| {
            let policies = match task.policies.as_deref() {
                None => unknown(),
                Some([]) => "-".to_owned(),
                Some(policies) => policies.join(","),
            };
            self.row(
                Some(&task.namespace),
                [
                    clip(&task.name, MAX_WHY),
                    clip(&task.state.to_string(), MAX_WHY),
                    self.age(task.since),
                    policies,
                    clip(&task.why, MAX_WHY),
                ],
            )
        };
        let mut counts = vec![format!("{} governed", section.entries.len())];
        let mut states: Vec<(String, usize)> = Vec::new();
        for task in &listed {
            let state = task.state.to_string();
            match states.iter_mut().find(|(known, _)| *known == state) {
                Some((_, count)) => *count += 1,
                None => states.push((state, 1)),
            }
        }
        counts.extend(
            states
                .iter()
                .map(|(state, count)| format!("{count} {}", clip(state, MAX_WHY))),
        );
        for (count, what) in [
            (done.len(), "Succeeded (not listed)"),
            (ungoverned, "not governed (not listed)"),
        ] {
            counts.extend((count > 0).then(|| format!("{count} {what}")));
        }
        self.section(
            "Tasks",
            &counts.join(", "),
            section,
            &["NAME", "STATE", "SINCE", "POLICY", "WHY"],
            &listed.iter().map(row).collect::<Vec<_>>(),
        )
    }

    fn items(&self, section: &StatusSection<ItemLine>, closed: usize) -> String {
        let row = |item: &ItemLine| {
            let failures = match (item.failures, item.infrastructure_failures) {
                (failures, 0) => failures.to_string(),
                (failures, infrastructure) => format!("{failures}+{infrastructure}"),
            };
            let cost = item
                .cost
                .as_deref()
                .map_or_else(|| "-".to_owned(), |cost| format!("${cost}"));
            let reason = item.reason.as_deref().unwrap_or_default();
            self.row(
                Some(&item.namespace),
                [
                    clip(&item.key, MAX_WHY),
                    item.breaker.clone(),
                    failures,
                    item.attempts.to_string(),
                    clip(&cost, MAX_WHY),
                    self.age(item.since),
                    clip(reason, MAX_WHY),
                ],
            )
        };
        self.section(
            "Open items",
            &format!("{} of {}", section.entries.len(), section.entries.len() + closed),
            section,
            &["ITEM", "BREAKER", "FAILURES", "ATTEMPTS", "COST", "SINCE", "WHY"],
            &section.entries.iter().map(row).collect::<Vec<_>>(),
        )
    }

    fn retries(&self, section: &StatusSection<RetryLine>) -> String {
        let row = |line: &RetryLine| {
            let attempt = line.max_attempts.map_or_else(
                || line.attempt.to_string(),
                |limit| format!("{} of {limit}", line.attempt),
            );
            self.row(
                Some(&line.namespace),
                [
                    clip(&line.key, MAX_WHY),
                    clip(&line.object, MAX_WHY),
                    line.step.clone(),
                    attempt,
                    self.age(Some(line.since)),
                    clip(&line.why, MAX_WHY),
                ],
            )
        };
        let in_progress = section.entries.iter().filter(|line| line.is_in_progress()).count();
        let rest = section.entries.len() - in_progress;
        self.section(
            "Retries",
            &format!("{in_progress} in progress, {rest} failed"),
            section,
            &["ITEM", "OBJECT", "STEP", "ATTEMPT", "SINCE", "WHY"],
            &section.entries.iter().map(row).collect::<Vec<_>>(),
        )
    }

    fn section<T>(
        &self,
        title: &str,
        count: &str,
        section: &StatusSection<T>,
        headings: &[&str],
        rows: &[Vec<String>],
    ) -> String {
        let mut text = format!("{title}: {count}\n");
        if let Some(problem) = &section.problem {
            text = format!("{title}: {}\n", clip(problem, 1024));
        }
        if !rows.is_empty() {
            let namespace = self.namespaces.then_some("NAMESPACE");
            let headings: Vec<_> = namespace.into_iter().chain(headings.iter().copied()).collect();
            text.push_str(&table(&headings, rows));
        }
        text
    }

    fn row<const N: usize>(&self, namespace: Option<&str>, cells: [String; N]) -> Vec<String> {
        let namespace = self.namespaces.then(|| namespace.unwrap_or("-").to_owned());
        namespace.into_iter().chain(cells).collect()
    }

    fn age(&self, since: Option<Timestamp>) -> String {
        since.map_or_else(unknown, |since| age(since, self.now))
    }
}

fn unknown() -> String {
    "?".to_owned()
}
