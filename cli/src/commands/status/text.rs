//! The report for people.

use jiff::Timestamp;
use taskgate_api::kelos;
use taskgate_policy::clip;

use super::report::{ItemLine, PolicyLine, RetryLine, StatusReport, TaskLine};
use crate::{
    commands::snapshot::DisplayState,
    output::{age, table},
};

/// The longest text in a table, in characters. JSON and YAML have the whole text.
const MAX_WHY: usize = 160;

/// An entry of the report as a row of its table.
trait Row {
    const HEADINGS: &'static [&'static str];

    fn namespace(&self) -> Option<&str>;

    /// A cell for each heading; ages are as of `now`.
    fn cells(&self, now: Timestamp) -> Vec<String>;
}

impl Row for PolicyLine {
    const HEADINGS: &'static [&'static str] = &["NAME", "MODE", "TASKS", "PROBLEM"];

    fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    fn cells(&self, _now: Timestamp) -> Vec<String> {
        vec![
            self.name.clone(),
            self.mode.clone().unwrap_or_else(unknown),
            self.tasks.map_or_else(unknown, |tasks| tasks.to_string()),
            clip(self.problem.as_deref().unwrap_or_default(), MAX_WHY),
        ]
    }
}

impl Row for TaskLine {
    const HEADINGS: &'static [&'static str] = &["NAME", "STATE", "SINCE", "POLICY", "WHY"];

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let policies = match self.policies.as_deref() {
            None => unknown(),
            Some([]) => "-".to_owned(),
            Some(policies) => policies.join(","),
        };
        vec![
            clip(&self.name, MAX_WHY),
            clip(&self.state.to_string(), MAX_WHY),
            self.since.map_or_else(unknown, |since| age(since, now)),
            policies,
            clip(&self.why, MAX_WHY),
        ]
    }
}

impl Row for ItemLine {
    const HEADINGS: &'static [&'static str] = &["ITEM", "BREAKER", "FAILURES", "ATTEMPTS", "COST", "SINCE", "WHY"];

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let failures = match (self.failures, self.infrastructure_failures) {
            (failures, 0) => failures.to_string(),
            (failures, infrastructure) => format!("{failures}+{infrastructure}"),
        };
        let cost = self.cost.as_deref();
        let cost = cost.map_or_else(|| "-".to_owned(), |cost| format!("${cost}"));
        vec![
            clip(&self.key, MAX_WHY),
            self.breaker.clone(),
            failures,
            self.attempts.to_string(),
            clip(&cost, MAX_WHY),
            self.since.map_or_else(unknown, |since| age(since, now)),
            clip(self.reason.as_deref().unwrap_or_default(), MAX_WHY),
        ]
    }
}

impl Row for RetryLine {
    const HEADINGS: &'static [&'static str] = &["ITEM", "OBJECT", "STEP", "ATTEMPT", "SINCE", "WHY"];

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let limit = self.max_attempts.map(|limit| format!(" of {limit}"));
        vec![
            clip(&self.key, MAX_WHY),
            clip(&self.object, MAX_WHY),
            self.step.clone(),
            format!("{}{}", self.attempt, limit.unwrap_or_default()),
            age(self.since, now),
            clip(&self.why, MAX_WHY),
        ]
    }
}

fn unknown() -> String {
    "?".to_owned()
}

/// The policies, Tasks and open items of `report`, each as kubectl names it.
pub(super) fn names(report: &StatusReport) -> String {
    let policies = report.policies.entries.iter().filter_map(|policy| {
        let (kind, name) = policy.name.split_once('/')?;
        Some(format!(
            "{}.{}/{name}\n",
            kind.to_ascii_lowercase(),
            taskgate_api::GROUP
        ))
    });
    let tasks = report.tasks.entries.iter();
    let tasks = tasks.map(|task| format!("task.{}/{}\n", kelos::GROUP, task.name));
    let items = report.open_items.entries.iter();
    let items = items.map(|item| format!("workitem.{}/{}\n", taskgate_api::GROUP, item.name));
    policies.chain(tasks).chain(items).collect()
}

/// `report` as sections of tables; ages are as of `now`. Tasks that succeeded are only counted.
pub(super) fn text(report: &StatusReport, now: Timestamp) -> String {
    tables(report, now, false)
}

/// As [`text`], with the Tasks that succeeded.
pub(super) fn wide(report: &StatusReport, now: Timestamp) -> String {
    tables(report, now, true)
}

fn tables(report: &StatusReport, now: Timestamp, wide: bool) -> String {
    let StatusReport {
        policies,
        tasks,
        open_items: items,
        retries,
        ..
    } = report;
    let succeeded = DisplayState::Phase("Succeeded".to_owned());
    let (done, listed): (Vec<_>, Vec<_>) = tasks.entries.iter().partition(|task| !wide && task.state == succeeded);
    let all_items = items.entries.len() + report.closed_items;
    let in_progress = retries.entries.iter().filter(|line| line.is_in_progress()).count();
    let failed = retries.entries.len() - in_progress;
    let namespaces = report.namespace.is_none();
    let [policy_count, task_count, item_count, retry_count] = [
        (&policies.problem, policies.entries.len().to_string()),
        (&tasks.problem, task_counts(report, &listed, done.len())),
        (&items.problem, format!("{} of {all_items}", items.entries.len())),
        (&retries.problem, format!("{in_progress} in progress, {failed} failed")),
    ]
    .map(|(problem, count)| problem.as_ref().map_or(count, |problem| clip(problem, 1024)));
    [
        format!("Policies: {policy_count}\n{}", rows(&policies.entries, namespaces, now)),
        format!("Tasks: {task_count}\n{}", rows(listed, namespaces, now)),
        format!("Open items: {item_count}\n{}", rows(&items.entries, namespaces, now)),
        format!("Retries: {retry_count}\n{}", rows(&retries.entries, namespaces, now)),
    ]
    .join("\n")
}

/// As `3 governed, 1 Queued, 1 Running, 1 Succeeded (not listed)`.
fn task_counts(report: &StatusReport, listed: &[&TaskLine], done: usize) -> String {
    let mut counts = vec![(report.tasks.entries.len(), "governed".to_owned())];
    let mut states: Vec<(usize, String)> = Vec::new();
    for task in listed {
        let state = clip(&task.state.to_string(), MAX_WHY);
        match states.iter_mut().find(|(_, known)| *known == state) {
            Some((count, _)) => *count += 1,
            None => states.push((1, state)),
        }
    }
    counts.extend(states);
    let omitted = [
        (done, "Succeeded (not listed)".to_owned()),
        (report.ungoverned_tasks, "not governed (not listed)".to_owned()),
    ];
    counts.extend(omitted.into_iter().filter(|(count, _)| *count > 0));
    let counts: Vec<_> = counts.iter().map(|(count, what)| format!("{count} {what}")).collect();
    counts.join(", ")
}

/// A table of `entries`, with a column for the namespaces where there are several; nothing where there are none.
fn rows<'a, R: Row + 'a>(entries: impl IntoIterator<Item = &'a R>, namespaces: bool, now: Timestamp) -> String {
    let namespace = |entry: &R| namespaces.then(|| entry.namespace().unwrap_or("-").to_owned());
    let row = |entry: &R| namespace(entry).into_iter().chain(entry.cells(now)).collect();
    let rows: Vec<Vec<String>> = entries.into_iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let headings = namespaces.then_some("NAMESPACE").into_iter();
    table(&headings.chain(R::HEADINGS.iter().copied()).collect::<Vec<_>>(), &rows)
}
