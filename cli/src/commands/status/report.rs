//! What there is to tell, as data: a pure function of what was read.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use taskgate_api::{WorkItem, kelos, keys, metadata::Metadata};
use taskgate_policy::PolicyName;

use super::retries::RetryLine;
use crate::commands::snapshot::{Kind, Policies, Snapshot, Standing, State, Trouble, Written, is_open, items};

/// Everything that `taskgate status` tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The one namespace that was looked at; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    pub(super) policies: Section<PolicyLine>,
    pub(super) tasks: Section<TaskLine>,
    /// How many Tasks no policy governs. They are left out, unless taskgate did something about them.
    pub(super) ungoverned_tasks: usize,
    pub(super) open_items: Section<ItemLine>,
    /// How many items are not stopped.
    pub(super) closed_items: usize,
    /// Failed runs: those that are repeated come first.
    pub(super) retries: Section<RetryLine>,
}

/// Entries of one kind, and what kept others from being known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Section<T> {
    pub(super) entries: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct PolicyLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    /// As `TaskPolicy/agents`.
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<String>,
    /// How many of the Tasks it governs, alone or with others; absent where that cannot be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tasks: Option<usize>,
    /// Why it cannot be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// A Task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TaskLine {
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(serialize_with = "as_text")]
    pub(super) state: State,
    /// What Kelos says.
    pub(super) phase: String,
    /// The policies that govern it; absent where that cannot be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policies: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
}

/// An item that is stopped.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ItemLine {
    pub(super) namespace: String,
    pub(super) key: String,
    /// The name of its `WorkItem`.
    pub(super) name: String,
    pub(super) breaker: String,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Failures in a row that were the cluster's.
    pub(super) infrastructure_failures: u32,
    /// How many attempts are remembered.
    pub(super) attempts: usize,
    #[serde(rename = "totalCostUSD", skip_serializing_if = "Option::is_none")]
    pub(super) cost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

fn as_text<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(state)
}

impl Report {
    /// What there is to tell of `snapshot`, which was taken of `namespace` or of all.
    pub(super) fn of(namespace: Option<&str>, snapshot: &Snapshot) -> Self {
        let policies = Policies::of(snapshot);
        let (items, unreadable) = items(snapshot);
        let by_name: HashMap<(&str, &str), &WorkItem> = items.iter().map(|item| (place(item), item)).collect();
        let mut governed: BTreeMap<PolicyName, usize> = BTreeMap::new();
        let mut ungoverned_tasks = 0;
        let mut tasks = Vec::new();
        for object in snapshot.objects(Kind::Tasks) {
            let names = policies.governing(object);
            for name in names.iter().flatten() {
                *governed.entry(name.clone()).or_default() += 1;
            }
            let line = task(object, names.as_deref(), &by_name);
            if concerns_us(object, &line) {
                tasks.push(line);
            } else {
                ungoverned_tasks += 1;
            }
        }
        tasks.sort_by(|a, b| (&a.namespace, &a.state, &a.name).cmp(&(&b.namespace, &b.state, &b.name)));
        let mut open: Vec<_> = items.iter().filter(|item| is_open(item)).map(item_line).collect();
        open.sort_by(|a, b| (&a.namespace, &a.key).cmp(&(&b.namespace, &b.key)));
        let closed_items = items.len() - open.len();
        let mut retries: Vec<_> = items.iter().filter_map(|item| RetryLine::of(item, snapshot)).collect();
        let order = |line: &RetryLine| (!line.is_under_way(), line.namespace.clone(), line.key.clone());
        retries.sort_by_cached_key(order);
        Self {
            namespace: namespace.map(ToOwned::to_owned),
            policies: policy_lines(&policies, &governed, snapshot),
            tasks: Section {
                entries: tasks,
                problem: problem(snapshot, Kind::Tasks),
            },
            ungoverned_tasks,
            open_items: Section {
                entries: open,
                problem: problem(snapshot, Kind::WorkItems).or(unreadable),
            },
            closed_items,
            retries: Section {
                entries: retries,
                problem: problem(snapshot, Kind::WorkItems),
            },
        }
    }
}

fn problem(snapshot: &Snapshot, kind: Kind) -> Option<String> {
    Some(match (snapshot.trouble(kind)?, kind) {
        (Trouble::Said(message), _) => message.clone(),
        (Trouble::Absent, Kind::Tasks) => "Kelos is not installed: the API server knows no Tasks".to_owned(),
        (Trouble::Absent, _) => "taskgate is not installed: the API server does not know its kinds".to_owned(),
    })
}

fn place(item: &WorkItem) -> (&str, &str) {
    let metadata = &item.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    (namespace, metadata.name.as_deref().unwrap_or_default())
}

fn task(object: &Value, policies: Option<&[PolicyName]>, items: &HashMap<(&str, &str), &WorkItem>) -> TaskLine {
    let metadata = Metadata::of(object);
    let namespace = metadata.namespace().unwrap_or_default();
    let item = metadata.label(keys::WORK_ITEM);
    let item = item.and_then(|name| items.get(&(namespace, name)).copied());
    let Standing { state, since, why } = Standing::of(object, item);
    TaskLine {
        namespace: namespace.to_owned(),
        name: metadata.name().unwrap_or_default().to_owned(),
        state,
        phase: kelos::Task::of(object).phase().to_owned(),
        policies: policies.map(|names| names.iter().map(ToString::to_string).collect()),
        since,
        why,
    }
}

/// Whether a policy governs the Task, or may, or taskgate did something about it.
fn concerns_us(object: &Value, line: &TaskLine) -> bool {
    let ours = matches!(
        line.state,
        State::CircuitBroken | State::Queued | State::Cancelling | State::Cancelled
    );
    let watched = Metadata::of(object).label(keys::WORK_ITEM).is_some();
    ours || watched || line.policies.as_ref().is_none_or(|policies| !policies.is_empty())
}

fn item_line(item: &WorkItem) -> ItemLine {
    let (namespace, name) = place(item);
    let status = item.status.clone().unwrap_or_default();
    let since = status.opened_at.or(status.last_failure_time);
    ItemLine {
        namespace: namespace.to_owned(),
        key: item.spec.key.clone(),
        name: name.to_owned(),
        breaker: status
            .breaker
            .map_or_else(String::new, |breaker| format!("{breaker:?}")),
        failures: status.consecutive_failures,
        infrastructure_failures: status.infrastructure_failures,
        attempts: status.attempts.len(),
        cost: status.total_cost_usd,
        since: since.map(|time| time.0),
        reason: status.reason,
    }
}

fn policy_lines(
    policies: &Policies,
    governed: &BTreeMap<PolicyName, usize>,
    snapshot: &Snapshot,
) -> Section<PolicyLine> {
    let known = policies.unknown.is_none();
    let line = |written: &Written| PolicyLine {
        namespace: match &written.name {
            PolicyName::Namespaced { namespace, .. } => Some(namespace.clone()),
            PolicyName::Cluster { .. } => None,
        },
        name: written.name.to_string(),
        mode: written.mode.map(|mode| format!("{mode:?}")),
        tasks: known.then(|| governed.get(&written.name).copied().unwrap_or_default()),
        problem: written.problem.clone(),
    };
    let absent = problem(snapshot, Kind::Policies);
    let unknown = policies
        .unknown
        .as_ref()
        .map(|why| format!("which policy governs a Task cannot be said: {why}"));
    Section {
        entries: policies.written.iter().map(line).collect(),
        problem: unknown.or(absent),
    }
}
