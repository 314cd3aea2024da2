//! The items whose failed run is repeated, or stays as it is.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use taskgate_api::{
    WorkItem,
    metadata::Metadata,
    retry_status::{RetryStatus, RunFailure, RunRef, Transition},
};
use taskgate_policy::retry::{GivenUp, condition};

use crate::commands::snapshot::{Kind, Snapshot};

/// What a run that failed, and is not being repeated, stands at.
const FAILED: &str = "Failed";

/// An item whose latest run failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RetryLine {
    pub(super) namespace: String,
    pub(super) key: String,
    /// The name of its `WorkItem`.
    pub(super) name: String,
    /// What is repeated, as `Workload/wl-7`.
    pub(super) object: String,
    /// How far the retry has come: `Planned`, `Deleting`, `Deleted`; `Failed` where there is none.
    pub(super) step: String,
    /// The number of the run that is to come; of the one that failed where there is none.
    pub(super) attempt: u32,
    /// How many runs there may be; absent where no policy is known that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_attempts: Option<u32>,
    pub(super) since: Timestamp,
    /// What holds the retry up, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blocked: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
}

impl RetryLine {
    /// What there is to tell of `item`; nothing unless its latest run failed.
    pub(super) fn of(item: &WorkItem, snapshot: &Snapshot) -> Option<Self> {
        let ledger = item.status.as_ref()?.retry.as_ref()?;
        let metadata = &item.metadata;
        let line = |run: &RunRef, since| Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            key: item.spec.key.clone(),
            name: metadata.name.clone().unwrap_or_default(),
            object: format!("{}/{}", run.kind.as_str(), run.name),
            step: FAILED.to_owned(),
            attempt: ledger.attempt,
            max_attempts: None,
            since,
            blocked: None,
            why: String::new(),
        };
        match ledger {
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
                    why: under_way(transition),
                    ..own
                })
            }
            RetryStatus {
                run: Some(run),
                failure: Some(failure),
                ..
            } => Some(Self {
                why: stays(item, failure),
                ..line(run, failure.time.0)
            }),
            _ => None,
        }
    }

    /// Whether the run is being repeated.
    pub(super) fn is_under_way(&self) -> bool {
        self.step != FAILED
    }
}

fn under_way(transition: &Transition) -> String {
    match (&transition.blocked, &transition.requested_by) {
        (Some(blocked), _) => format!("{}: {}", blocked.reason, blocked.message),
        (None, Some(by)) => format!("asked for by {by}"),
        (None, None) => String::new(),
    }
}

/// Why the failed run stays as it is; what was said of an earlier one is not told.
fn stays(item: &WorkItem, failure: &RunFailure) -> String {
    let said = item.status.as_ref().and_then(condition);
    match said.filter(|said| GivenUp::is_reason(&said.reason)) {
        Some(said) => format!("{}: {}", said.reason, said.message),
        None => format!("{:?} failure, {}: waits for its turn", failure.class, failure.reason),
    }
}

/// What the policy says that a ledger calls `NAMESPACE/TaskPolicy/NAME`, or `ClusterTaskPolicy/NAME`.
fn max_attempts(snapshot: &Snapshot, policy: &str) -> Option<u32> {
    let (place, name) = policy.rsplit_once('/')?;
    let (kind, namespace) = match place.split_once('/') {
        Some((namespace, _)) => (Kind::Policies, Some(namespace)),
        None => (Kind::ClusterPolicies, None),
    };
    let is_it = |object: &&std::sync::Arc<Value>| {
        let metadata = Metadata::of(object);
        metadata.name() == Some(name) && metadata.namespace() == namespace
    };
    let found = snapshot.objects(kind).iter().find(is_it)?;
    let limit = found.pointer("/spec/retry/maxAttempts")?.as_u64()?;
    u32::try_from(limit).ok()
}
