//! Trims objects to the fields that decisions need.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::{Value, json};
use taskgate_api::WorkItemStatus;
use taskgate_policy::{SpawnerInfo, WorkspaceInfo};
use tracing::warn;

/// A trimmed `WorkItem`.
#[derive(Debug)]
pub(crate) struct CachedWorkItem {
    /// The key of the item that it belongs to.
    pub(crate) key: String,
    /// Its status, without attempts and conditions.
    pub(crate) status: Arc<WorkItemStatus>,
}

/// The labels of an object.
pub(crate) fn labels(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    metadata.labels.clone().unwrap_or_default()
}

/// The fields of a spawner that policies use.
pub(crate) fn spawner_info(object: DynamicObject) -> SpawnerInfo {
    SpawnerInfo::of(&json(object))
}

/// The fields of a Workspace that templates use.
pub(crate) fn workspace_info(object: DynamicObject) -> WorkspaceInfo {
    WorkspaceInfo::of(&json(object))
}

fn json(object: DynamicObject) -> Value {
    let DynamicObject { metadata, mut data, .. } = object;
    data["metadata"] = json!({"uid": metadata.uid, "labels": metadata.labels});
    data
}

#[derive(Deserialize)]
struct WorkItemView {
    spec: KeyView,
    #[serde(default)]
    status: WorkItemStatus,
}

#[derive(Deserialize)]
struct KeyView {
    key: String,
}

/// A `WorkItem` without attempts, or `None` if it cannot be read: a typed watch would fail for all of them.
pub(super) fn work_item(object: DynamicObject) -> Option<Arc<CachedWorkItem>> {
    let view: WorkItemView = match serde_json::from_value(object.data) {
        Ok(view) => view,
        Err(error) => {
            let metadata = object.metadata;
            warn!(namespace = metadata.namespace, name = metadata.name, %error, "skipping a WorkItem that cannot be read");
            return None;
        }
    };
    let status = WorkItemStatus {
        attempts: Vec::new(),
        conditions: Vec::new(),
        content_hash: None,
        ..view.status
    };
    Some(Arc::new(CachedWorkItem {
        key: view.spec.key,
        status: Arc::new(status),
    }))
}

#[cfg(test)]
mod tests {
    use taskgate_api::work_item::Breaker;

    use super::*;

    fn object(data: serde_json::Value) -> DynamicObject {
        serde_json::from_value(data).unwrap()
    }

    #[test]
    fn attempts_are_trimmed_and_an_unreadable_item_is_skipped() {
        let kept = work_item(object(json!({
            "metadata": {"name": "fixer-42", "managedFields": []},
            "spec": {"key": "fixer/42", "item": "42"},
            "status": {"breaker": "Open", "consecutiveFailures": 3,
                "attempts": [{"uid": "u", "name": "n", "outcome": "Failed"}]},
        })))
        .unwrap();
        assert_eq!(
            (kept.key.as_str(), kept.status.breaker),
            ("fixer/42", Some(Breaker::Open))
        );
        assert!(kept.status.attempts.is_empty());
        let odd = object(json!({"metadata": {}, "spec": {"key": "a"}, "status": {"breaker": "Ajar"}}));
        assert!(work_item(odd).is_none());
    }
}
