//! Trims objects to the fields that decisions and reconciles read.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde_json::{Map, Value, json};
use taskgate_api::{
    condition::QUEUED,
    kelos_fields::{FailedItem, FailedItemReset, KelosField, failed_item_resets, failed_items},
};
use taskgate_policy::{SpawnerInfo, TEMPLATE_FIELDS, WorkspaceInfo, kelos_fields::needs_sync};

use crate::policies::SpawnerPolicy;

/// A trimmed `TaskSpawner`.
#[derive(Debug, PartialEq)]
pub struct CachedSpawner {
    /// What policies select by.
    pub info: Arc<SpawnerInfo>,
    /// Its metadata, where its items come from, and whether it is suspended.
    pub object: DynamicObject,
    /// Its policy fields; `None` if it has none.
    pub policy: Option<Arc<SpawnerPolicy>>,
    /// Its `status.failedItems`.
    pub failed_items: BTreeMap<String, FailedItem>,
    /// Its `status.failedItemResets`.
    pub resets: BTreeMap<String, FailedItemReset>,
    /// Whether the fields that taskgate adds to its spec, and their copy, differ.
    pub fields_differ: bool,
}

/// The labels of an object.
pub fn labels(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    metadata.labels.clone().unwrap_or_default()
}

/// The fields of a spawner that policies use.
pub fn spawner_info(object: &DynamicObject) -> SpawnerInfo {
    SpawnerInfo::of(&json(object))
}

/// The fields of a Workspace that templates use.
pub fn workspace_info(object: &DynamicObject) -> WorkspaceInfo {
    WorkspaceInfo::of(&json(object))
}

/// The object with those of its metadata that policies read.
pub(crate) fn json(object: &DynamicObject) -> Value {
    let ObjectMeta {
        uid,
        labels,
        annotations,
        ..
    } = &object.metadata;
    let mut json = object.data.clone();
    json["metadata"] = json!({"uid": uid, "labels": labels, "annotations": annotations});
    json
}

/// `policy` are its compiled policy fields.
pub(crate) fn spawner(mut object: DynamicObject, policy: Option<Arc<SpawnerPolicy>>) -> CachedSpawner {
    object.metadata.managed_fields = None;
    let (failed_items, resets) = (failed_items(&object.data), failed_item_resets(&object.data));
    let fields_differ = needs_sync(&json(&object), &KelosField::all());
    let kept = |pointer: &str| object.data.pointer(pointer).cloned().unwrap_or_default();
    object.data = json!({"spec": {
        "suspend": kept("/spec/suspend"),
        "when": kept("/spec/when"),
        "taskTemplate": {
            "workspaceRef": kept("/spec/taskTemplate/workspaceRef"),
            "worker": {"workspaceRef": kept("/spec/taskTemplate/worker/workspaceRef")},
        },
    }});
    CachedSpawner {
        info: Arc::new(spawner_info(&object)),
        object,
        policy,
        failed_items,
        resets,
        fields_differ,
    }
}

/// The longest text of a Task's spec that is kept, in bytes. Templates see less of it.
const MAX_TEXT: usize = 8 << 10;

/// Removes from a Task what neither a reconcile nor the review of its Job reads, so that the cache stays small: prompt, credentials
/// and outputs among them. What templates see of the spec is kept as they see it.
pub fn trim_task(object: &mut DynamicObject) {
    const OWN: [&str; 2] = ["ttlSecondsAfterFinished", "queueName"];
    object.metadata.managed_fields = None;
    let spec = object.data.get("spec");
    let mut kept = only_fields(spec, &[&TEMPLATE_FIELDS[..], &OWN].concat());
    if let Some(worker) = spec.and_then(|spec| spec.get("worker")) {
        kept["worker"] = only_fields(Some(worker), &TEMPLATE_FIELDS);
    }
    cut_texts(&mut kept);
    let mut status = only_fields(
        object.data.get("status"),
        &[
            "phase",
            "jobName",
            "podName",
            "startTime",
            "completionTime",
            "message",
            "cancelledBy",
            "usage",
        ],
    );
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let queued = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == QUEUED);
    if let Some(queued) = queued {
        status["conditions"] = json!([queued]);
    }
    object.data = json!({"spec": kept, "status": status});
}

/// Cuts texts that are longer than templates see.
fn cut_texts(value: &mut Value) {
    match value {
        Value::String(text) => text.truncate(text.floor_char_boundary(MAX_TEXT)),
        Value::Array(items) => items.iter_mut().for_each(cut_texts),
        Value::Object(fields) => fields.values_mut().for_each(cut_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A copy of `value` with these fields only.
pub fn only_fields(value: Option<&Value>, fields: &[&str]) -> Value {
    let kept: Map<String, Value> = fields
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), value?.get(*field)?.clone())))
        .collect();
    Value::Object(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(data: Value) -> DynamicObject {
        serde_json::from_value(data).unwrap()
    }

    #[test]
    fn a_spawner_is_trimmed_to_its_source() {
        let when = json!({"githubIssues": {"repo": "o/r"}});
        let stored = object(json!({
            "metadata": {"name": "fixer", "uid": "u", "labels": {"team": "a"}, "managedFields": []},
            "spec": {"suspend": true, "when": when, "taskTemplate": {"workspaceRef": {"name": "w"}, "promptTemplate": "long"}},
            "status": {"phase": "Running"},
        }));
        let kept = spawner(stored, None);
        assert_eq!(
            (kept.info.uid.as_str(), kept.info.repository.as_deref()),
            ("u", Some("o/r"))
        );
        assert!(kept.info.has_issue_source && kept.info.labels["team"] == "a");
        let template = json!({"workspaceRef": {"name": "w"}, "worker": {"workspaceRef": null}});
        let spec = json!({"suspend": true, "when": when, "taskTemplate": template});
        assert_eq!(kept.object.data, json!({"spec": spec}));
    }
}
