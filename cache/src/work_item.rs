//! `WorkItem`s in their compact form: there may be very many, and most have nothing but a name and some ended attempts.
//!
//! They are decoded from what the watch sends without the fields that the cache does not keep. A reader expands the one that it
//! needs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use taskgate_api::{
    WorkItem, WorkItemSpec, WorkItemStatus,
    retry_status::RetryStatus,
    work_item::{Attempt, Breaker, Outcome, Reset},
};
use tracing::warn;

use crate::store::Versioned;

/// A `WorkItem` as it is watched. Spec and status are parsed later, so that one that this version cannot read is skipped: an error
/// here would end the watch of all of them.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = WorkItem)]
pub(crate) struct WatchedWorkItem {
    #[serde(deserialize_with = "kept_metadata")]
    metadata: ObjectMeta,
    spec: Box<RawValue>,
    status: Option<Box<RawValue>>,
}

/// The metadata that the cache keeps; the managed fields, which may be larger than all else, are not among it.
fn kept_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct KeptMetadata {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        annotations: Option<BTreeMap<String, String>>,
        deletion_timestamp: Option<Time>,
    }
    let kept = KeptMetadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: kept.name,
        namespace: kept.namespace,
        uid: kept.uid,
        resource_version: kept.resource_version,
        annotations: kept.annotations,
        deletion_timestamp: kept.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

/// A `WorkItem` with what admission, the next step, the limit and the spawner's condition depend on. A reconcile that writes one
/// reads it whole.
#[derive(Debug, PartialEq)]
pub struct CachedWorkItem {
    namespace: Box<str>,
    name: Box<str>,
    uid: Box<str>,
    resource_version: Box<str>,
    annotations: BTreeMap<String, String>,
    deletion_timestamp: Option<Time>,
    spec: CachedSpec,
    status: Option<Box<CachedStatus>>,
}

/// The fields of [`WorkItemSpec`].
#[derive(Debug, PartialEq, Deserialize)]
struct CachedSpec {
    key: Box<str>,
    item: Box<str>,
    spawner: Option<Box<str>>,
}

/// The fields of [`WorkItemStatus`] that are kept: not the conditions.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CachedStatus {
    breaker: Option<Breaker>,
    #[serde(default)]
    consecutive_failures: u32,
    #[serde(default)]
    infrastructure_failures: u32,
    last_failure_time: Option<Time>,
    opened_at: Option<Time>,
    reason: Option<Box<str>>,
    content_hash: Option<Box<str>>,
    last_reset: Option<Box<Reset>>,
    retry: Option<Box<RetryStatus>>,
    #[serde(default)]
    attempts: Box<[CachedAttempt]>,
    #[serde(rename = "totalCostUSD")]
    total_cost_usd: Option<Box<str>>,
}

/// The fields of [`Attempt`] that are kept: not what only people read.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CachedAttempt {
    uid: Box<str>,
    outcome: Outcome,
    #[serde(default)]
    opened: bool,
    completion_time: Option<Time>,
    #[serde(rename = "costUSD")]
    cost_usd: Option<Box<str>>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
}

impl CachedWorkItem {
    /// The compact form; `None` if the object cannot be read.
    pub(crate) fn of(object: WatchedWorkItem) -> Option<Self> {
        let WatchedWorkItem { metadata, spec, status } = object;
        let status = status.map(|status| serde_json::from_str::<Box<CachedStatus>>(status.get()));
        let read = status
            .transpose()
            .and_then(|status| Ok((serde_json::from_str(spec.get())?, status)));
        let (spec, mut status) = read
            .inspect_err(|error| {
                let (namespace, name) = (&metadata.namespace, &metadata.name);
                warn!(namespace, name, %error, "skipping a WorkItem that cannot be read");
            })
            .ok()?;
        let retry = status.as_mut().and_then(|status| status.retry.as_mut());
        // The copy of an object that is being replaced is as large as the object.
        if let Some(transition) = retry.and_then(|retry| retry.transition.as_mut()) {
            transition.predecessor = None;
            transition.feedback = None;
            transition.children = Vec::new();
        }
        Some(Self {
            namespace: metadata.namespace.unwrap_or_default().into(),
            name: metadata.name.unwrap_or_default().into(),
            uid: metadata.uid.unwrap_or_default().into(),
            resource_version: metadata.resource_version.unwrap_or_default().into(),
            annotations: metadata.annotations.unwrap_or_default(),
            deletion_timestamp: metadata.deletion_timestamp,
            spec,
            status,
        })
    }

    /// The compact form of a `WorkItem` that this process has whole; the same as of what the watch sends.
    pub fn compact(item: &WorkItem) -> Option<Self> {
        let text = serde_json::to_string(item).ok()?;
        serde_json::from_str(&text).ok().and_then(Self::of)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The full identity of the item within its namespace.
    pub fn key(&self) -> &str {
        &self.spec.key
    }

    /// The `TaskSpawner` that creates Tasks for the item.
    pub fn spawner(&self) -> Option<&str> {
        self.spec.spawner.as_deref()
    }

    /// Whether the breaker is open or half-open.
    pub fn is_tripped(&self) -> bool {
        let breaker = self.status.as_ref().and_then(|status| status.breaker);
        matches!(breaker, Some(Breaker::Open | Breaker::HalfOpen))
    }

    /// Whether a failure counts against the item, or it is tripped.
    pub fn has_failures(&self) -> bool {
        let counts = |status: &CachedStatus| status.consecutive_failures > 0;
        self.status.as_deref().is_some_and(counts) || self.is_tripped()
    }

    /// The status, as far as it is kept.
    pub fn status(&self) -> Option<WorkItemStatus> {
        self.status.as_deref().map(WorkItemStatus::from)
    }

    /// The `WorkItem`, as far as it is kept.
    pub fn expand(&self) -> WorkItem {
        let spec = WorkItemSpec {
            key: self.spec.key.to_string(),
            item: self.spec.item.to_string(),
            spawner: self.spawner().map(str::to_owned),
        };
        let metadata = ObjectMeta {
            namespace: Some(self.namespace.to_string()),
            name: Some(self.name.to_string()),
            uid: Some(self.uid.to_string()),
            resource_version: Some(self.resource_version.to_string()),
            annotations: Some(self.annotations.clone()).filter(|annotations| !annotations.is_empty()),
            deletion_timestamp: self.deletion_timestamp.clone(),
            ..ObjectMeta::default()
        };
        WorkItem {
            metadata,
            spec,
            status: self.status(),
        }
    }
}

impl Versioned for CachedWorkItem {
    fn version(&self) -> Option<&str> {
        Some(&self.resource_version)
    }
}

impl From<&CachedStatus> for WorkItemStatus {
    fn from(status: &CachedStatus) -> Self {
        Self {
            breaker: status.breaker,
            consecutive_failures: status.consecutive_failures,
            infrastructure_failures: status.infrastructure_failures,
            last_failure_time: status.last_failure_time.clone(),
            opened_at: status.opened_at.clone(),
            reason: status.reason.as_deref().map(str::to_owned),
            content_hash: status.content_hash.as_deref().map(str::to_owned),
            last_reset: status.last_reset.as_deref().cloned(),
            retry: status.retry.as_deref().cloned(),
            attempts: status.attempts.iter().map(Attempt::from).collect(),
            total_cost_usd: status.total_cost_usd.as_deref().map(str::to_owned),
            conditions: Vec::new(),
        }
    }
}

impl From<&CachedAttempt> for Attempt {
    fn from(attempt: &CachedAttempt) -> Self {
        Self {
            uid: attempt.uid.to_string(),
            name: String::new(),
            outcome: attempt.outcome,
            opened: attempt.opened,
            reason: None,
            cancelled_by: None,
            start_time: None,
            completion_time: attempt.completion_time.clone(),
            cost_usd: attempt.cost_usd.as_deref().map(str::to_owned),
            input_tokens: attempt.input_tokens,
            output_tokens: attempt.output_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cached(object: &Value) -> Option<CachedWorkItem> {
        CachedWorkItem::of(serde_json::from_str(&object.to_string()).unwrap())
    }

    #[test]
    fn attempts_are_trimmed_and_an_unreadable_item_is_skipped() {
        let kept = cached(&json!({
            "metadata": {"name": "fixer-42", "namespace": "a", "uid": "u", "resourceVersion": "7", "managedFields": [1]},
            "spec": {"key": "fixer/42", "item": "42"},
            "status": {"breaker": "Open", "consecutiveFailures": 3, "conditions": [], "attempts": [
                {"uid": "u", "name": "n", "outcome": "Failed", "reason": "Error", "startTime": "2026-01-01T00:00:00Z",
                 "completionTime": "2026-01-01T00:01:00Z", "costUSD": "0.25", "inputTokens": 5},
            ], "retry": {"attempt": 2}},
        }))
        .unwrap();
        assert!(kept.is_tripped());
        assert_eq!(
            (kept.namespace(), kept.name(), kept.key()),
            ("a", "fixer-42", "fixer/42")
        );
        let expected = json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem",
            "metadata": {"name": "fixer-42", "namespace": "a", "uid": "u", "resourceVersion": "7"},
            "spec": {"key": "fixer/42", "item": "42"},
            "status": {"breaker": "Open", "consecutiveFailures": 3, "attempts": [
                {"uid": "u", "name": "", "outcome": "Failed", "completionTime": "2026-01-01T00:01:00Z", "costUSD": "0.25",
                 "inputTokens": 5},
            ], "retry": {"attempt": 2}},
        });
        assert_eq!(serde_json::to_value(kept.expand()).unwrap(), expected);
        let new = json!({"metadata": {}, "spec": {"key": "fixer/42", "item": "42"}});
        assert!(cached(&new).unwrap().status().is_none());
        let odd = json!({"metadata": {}, "spec": {"key": "a", "item": "a"}, "status": {"breaker": "Ajar"}});
        assert!(cached(&odd).is_none());
    }

    #[test]
    fn a_transition_is_kept_without_the_object_that_it_replaces() {
        let run = json!({"kind": "Task", "name": "a", "uid": "u"});
        let kept = cached(&json!({
            "metadata": {"name": "a"}, "spec": {"key": "a", "item": "a"},
            "status": {"retry": {"attempt": 1, "transition": {
                "old": run, "from": 1, "to": 2, "step": "Deleted", "since": "2026-01-01T00:00:00Z",
                "predecessor": {"spec": {}}, "feedback": "long", "children": ["b"],
            }}},
        }));
        let transition = kept.unwrap().status().unwrap().retry.unwrap().transition.unwrap();
        assert_eq!((transition.to, transition.old.uid.as_str()), (2, "u"));
        assert!(transition.predecessor.is_none() && transition.feedback.is_none() && transition.children.is_empty());
    }
}
