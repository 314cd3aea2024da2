//! The report as data: a pure function of the snapshot.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use taskgate_api::{
    WorkItem, kelos, keys,
    metadata::Metadata,
    retry_status::{RetryStatus, RunFailure, RunRef},
};
use taskgate_policy::{
    PolicyName,
    retry::{BACKING_OFF, GivenUp, condition},
};

use crate::commands::{
    snapshot::{Collection, CompiledPolicies, CompiledPolicy, DisplayState, ReadError, Snapshot, TaskSummary},
    work_items::is_tripped,
};

/// The step of a failed run that is not being retried.
const FAILED: &str = "Failed";

/// The report of `taskgate status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusReport {
    /// The one namespace that was read; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    pub(super) policies: StatusSection<PolicyLine>,
    pub(super) tasks: StatusSection<TaskLine>,
    /// How many Tasks no policy governs. They are omitted, unless taskgate acted on them.
    pub(super) ungoverned_tasks: usize,
    pub(super) open_items: StatusSection<ItemLine>,
    /// How many items are not tripped.
    pub(super) closed_items: usize,
    /// Failed runs: those that are being retried come first.
    pub(super) retries: StatusSection<RetryLine>,
}

/// Entries of one kind, and why others could not be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct StatusSection<T> {
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
    /// How many of the Tasks it governs, alone or with others; absent where that is not known.
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
    pub(super) state: DisplayState,
    /// Its phase in Kelos.
    pub(super) phase: String,
    /// The policies that govern it; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policies: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
}

/// An item that is tripped.
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
    /// How many attempts are recorded.
    pub(super) attempts: usize,
    #[serde(rename = "totalCostUSD", skip_serializing_if = "Option::is_none")]
    pub(super) cost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

fn as_text<S: Serializer>(state: &DisplayState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(state)
}

impl StatusReport {
    /// The report on `snapshot`, which was read in `namespace`, or in all.
    pub(super) fn of(namespace: Option<&str>, snapshot: &Snapshot) -> Self {
        let policies = CompiledPolicies::of(snapshot);
        let (items, unreadable) = snapshot.work_items();
        let by_name: HashMap<(&str, &str), &WorkItem> = items.iter().map(|item| (key(item), item)).collect();
        let mut governed: BTreeMap<PolicyName, usize> = BTreeMap::new();
        let mut ungoverned_tasks = 0;
        let mut tasks = Vec::new();
        for object in snapshot.objects(Collection::Tasks) {
            let names = policies.governing(object);
            for name in names.iter().flatten() {
                *governed.entry(name.clone()).or_default() += 1;
            }
            let line = task(object, names.as_deref(), &by_name);
            if is_relevant(object, &line) {
                tasks.push(line);
            } else {
                ungoverned_tasks += 1;
            }
        }
        tasks.sort_by(|a, b| (&a.namespace, &a.state, &a.name).cmp(&(&b.namespace, &b.state, &b.name)));
        let mut open: Vec<_> = items.iter().filter(|item| is_tripped(item)).map(item_line).collect();
        open.sort_by(|a, b| (&a.namespace, &a.key).cmp(&(&b.namespace, &b.key)));
        let closed_items = items.len() - open.len();
        let mut retries: Vec<_> = items.iter().filter_map(|item| RetryLine::of(item, snapshot)).collect();
        let order = |line: &RetryLine| (!line.is_in_progress(), line.namespace.clone(), line.key.clone());
        retries.sort_by_cached_key(order);
        Self {
            namespace: namespace.map(ToOwned::to_owned),
            policies: policy_lines(&policies, &governed, snapshot),
            tasks: StatusSection {
                entries: tasks,
                problem: problem(snapshot, Collection::Tasks),
            },
            ungoverned_tasks,
            open_items: StatusSection {
                entries: open,
                problem: problem(snapshot, Collection::WorkItems).or(unreadable),
            },
            closed_items,
            retries: StatusSection {
                entries: retries,
                problem: problem(snapshot, Collection::WorkItems),
            },
        }
    }
}

fn problem(snapshot: &Snapshot, collection: Collection) -> Option<String> {
    Some(match (snapshot.error(collection)?, collection) {
        (ReadError::Refused(message) | ReadError::Unreachable(message), _) => message.clone(),
        (ReadError::Absent, Collection::Tasks) => "Kelos is not installed: the API server has no Tasks".to_owned(),
        (ReadError::Absent, _) => "taskgate is not installed: the API server does not have its kinds".to_owned(),
    })
}

fn key(item: &WorkItem) -> (&str, &str) {
    let metadata = &item.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    (namespace, metadata.name.as_deref().unwrap_or_default())
}

fn task(object: &Value, policies: Option<&[PolicyName]>, items: &HashMap<(&str, &str), &WorkItem>) -> TaskLine {
    let metadata = Metadata::of(object);
    let namespace = metadata.namespace().unwrap_or_default();
    let item = metadata.label(keys::WORK_ITEM);
    let item = item.and_then(|name| items.get(&(namespace, name)).copied());
    let TaskSummary { state, since, why } = TaskSummary::of(object, item);
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

/// Whether a policy governs the Task, or may, or taskgate acted on it.
fn is_relevant(object: &Value, line: &TaskLine) -> bool {
    let has_own_state = matches!(
        line.state,
        DisplayState::CircuitBroken | DisplayState::Queued | DisplayState::Cancelling | DisplayState::Cancelled
    );
    let is_counted = Metadata::of(object).label(keys::WORK_ITEM).is_some();
    has_own_state || is_counted || line.policies.as_ref().is_none_or(|policies| !policies.is_empty())
}

fn item_line(item: &WorkItem) -> ItemLine {
    let (namespace, name) = key(item);
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
    policies: &CompiledPolicies,
    governed: &BTreeMap<PolicyName, usize>,
    snapshot: &Snapshot,
) -> StatusSection<PolicyLine> {
    let known = policies.unknown.is_none();
    let line = |policy: &CompiledPolicy| PolicyLine {
        namespace: policy.namespace().map(ToOwned::to_owned),
        name: policy.name.to_string(),
        mode: policy.spec.as_ref().map(|spec| format!("{:?}", spec.mode)),
        tasks: known.then(|| governed.get(&policy.name).copied().unwrap_or_default()),
        problem: policy.problem(),
    };
    let absent = problem(snapshot, Collection::Policies);
    let unknown = policies
        .unknown
        .as_ref()
        .map(|why| format!("which policies govern a Task is not known: {why}"));
    StatusSection {
        entries: policies.all.iter().map(line).collect(),
        problem: unknown.or(absent),
    }
}

/// An item whose latest run failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RetryLine {
    pub(super) namespace: String,
    pub(super) key: String,
    /// The name of its `WorkItem`.
    pub(super) name: String,
    /// The object of the run, as `Workload/wl-7`.
    pub(super) object: String,
    /// The step of the retry: `Planned`, `Deleting`, `Deleted`; `Failed` where there is none.
    pub(super) step: String,
    /// The number of the next run; of the failed one where no retry is in progress.
    pub(super) attempt: u32,
    /// The limit of runs; absent where no policy is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_attempts: Option<u32>,
    pub(super) since: Timestamp,
    /// When the next attempt is due, while the backoff lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_attempt: Option<Timestamp>,
    /// What blocks the retry, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blocked: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
}

impl RetryLine {
    /// The line of `item`; `None` unless its latest run failed.
    pub(super) fn of(item: &WorkItem, snapshot: &Snapshot) -> Option<Self> {
        let retry_status = item.status.as_ref()?.retry.as_ref()?;
        let metadata = &item.metadata;
        let line = |run: &RunRef, since| Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            key: item.spec.key.clone(),
            name: metadata.name.clone().unwrap_or_default(),
            object: format!("{}/{}", run.kind, run.name),
            step: FAILED.to_owned(),
            attempt: retry_status.attempt,
            max_attempts: None,
            since,
            next_attempt: None,
            blocked: None,
            why: String::new(),
        };
        match retry_status {
            RetryStatus {
                transition: Some(transition),
                ..
            } => {
                let own = line(&transition.old, transition.since.0);
                let policy = transition.policy.as_deref();
                Some(Self {
                    step: format!("{:?}", transition.step),
                    attempt: transition.to,
                    max_attempts: policy.and_then(|policy| max_attempts(snapshot, policy)),
                    blocked: transition.blocked.as_ref().map(|blocked| blocked.reason.clone()),
                    why: match (&transition.blocked, &transition.requested_by) {
                        (Some(blocked), _) => format!("{}: {}", blocked.reason, blocked.message),
                        (None, Some(by)) => format!("requested by {by}"),
                        (None, None) => String::new(),
                    },
                    ..own
                })
            }
            RetryStatus {
                run: Some(run),
                failure: Some(failure),
                ..
            } => Some(Self {
                next_attempt: failure.next_attempt_time.as_ref().map(|due| due.0),
                why: why(item, failure),
                ..line(run, failure.time.0)
            }),
            _ => None,
        }
    }

    /// Whether the run is being retried.
    pub(super) fn is_in_progress(&self) -> bool {
        self.step != FAILED
    }
}

/// When the failed run is retried, or why it is not. A condition of an earlier run does not count.
fn why(item: &WorkItem, failure: &RunFailure) -> String {
    let condition = item.status.as_ref().and_then(condition);
    let is_current = |reason: &str| reason == BACKING_OFF || GivenUp::is_reason(reason);
    match condition.filter(|condition| is_current(&condition.reason)) {
        Some(condition) => format!("{}: {}", condition.reason, condition.message),
        None => format!("{:?} failure, {}: waits for its turn", failure.class, failure.reason),
    }
}

/// The limit of the policy `NAMESPACE/TaskPolicy/NAME`, or `ClusterTaskPolicy/NAME`.
fn max_attempts(snapshot: &Snapshot, policy: &str) -> Option<u32> {
    let (prefix, name) = policy.rsplit_once('/')?;
    let (collection, namespace) = match prefix.split_once('/') {
        Some((namespace, _)) => (Collection::Policies, Some(namespace)),
        None => (Collection::ClusterPolicies, None),
    };
    let is_it = |object: &&Arc<Value>| {
        let metadata = Metadata::of(object);
        metadata.name() == Some(name) && metadata.namespace() == namespace
    };
    let found = snapshot.objects(collection).iter().find(is_it)?;
    let limit = found.pointer("/spec/retry/maxAttempts")?.as_u64()?;
    u32::try_from(limit).ok()
}
