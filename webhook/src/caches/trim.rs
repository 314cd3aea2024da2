//! What is kept of each object.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::{Value, json};
use taskgate_api::WorkItemStatus;
use taskgate_policy::{SpawnerInfo, WorkspaceInfo};
use tracing::warn;

/// What is kept of a `WorkItem`.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// The identity that it is about.
    pub(crate) key: String,
    /// Its status, without attempts and conditions.
    pub(crate) status: Arc<WorkItemStatus>,
}

/// The labels of an object.
pub(crate) fn labels(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    metadata.labels.clone().unwrap_or_default()
}

/// What policies ask of a spawner.
pub(crate) fn spawner_facts(object: DynamicObject) -> SpawnerInfo {
    SpawnerInfo::of(&json(object))
}

/// What templates ask of a Workspace.
pub(crate) fn workspace_facts(object: DynamicObject) -> WorkspaceInfo {
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

/// Untyped until here, so that one `WorkItem` that cannot be read does not hide the others.
pub(super) fn work_item(object: DynamicObject) -> Option<Arc<Remembered>> {
    let view: WorkItemView = match serde_json::from_value(object.data) {
        Ok(view) => view,
        Err(error) => {
            let metadata = object.metadata;
            warn!(namespace = metadata.namespace, name = metadata.name, %error, "a WorkItem cannot be read; left out");
            return None;
        }
    };
    let status = WorkItemStatus {
        attempts: Vec::new(),
        conditions: Vec::new(),
        content_hash: None,
        ..view.status
    };
    Some(Arc::new(Remembered {
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
    fn attempts_are_not_kept_and_an_unreadable_item_is_left_out() {
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
