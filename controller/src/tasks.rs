//! The Tasks of the cluster, as accounting needs them: who belongs to which work item, and what each object says.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock},
};

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Map, Value, json};
use taskgate_api::{condition::QUEUED, kelos, metadata::Metadata};
use taskgate_policy::TaskState;

/// Namespace and name of a `WorkItem`.
pub(crate) type ItemRef = (String, String);

/// The Tasks of each work item, by UID.
#[derive(Debug, Default)]
pub(crate) struct TaskIndex {
    items: RwLock<HashMap<ItemRef, BTreeMap<String, TaskState>>>,
}

impl TaskIndex {
    /// Takes note of a Task that is there.
    pub(crate) fn put(&self, namespace: &str, state: TaskState) {
        let Some(work_item) = state.work_item.clone() else {
            return;
        };
        let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
        let tasks = items.entry((namespace.to_owned(), work_item)).or_default();
        tasks.insert(state.uid.clone(), state);
    }

    /// Takes note that a Task is gone.
    pub(crate) fn remove(&self, namespace: &str, state: &TaskState) {
        let Some(work_item) = state.work_item.clone() else {
            return;
        };
        let key = (namespace.to_owned(), work_item);
        let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(tasks) = items.get_mut(&key) {
            tasks.remove(&state.uid);
            if tasks.is_empty() {
                items.remove(&key);
            }
        }
    }

    /// Forgets everything: the Tasks are listed anew.
    pub(crate) fn clear(&self) {
        self.items.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The Tasks of a work item.
    pub(crate) fn of(&self, item: &ItemRef) -> Vec<TaskState> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        items
            .get(item)
            .map(|tasks| tasks.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether a work item has Tasks.
    pub(crate) fn has(&self, item: &ItemRef) -> bool {
        self.items
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(item)
    }
}

/// Kelos' Task in `version`.
pub(crate) fn resource(version: &str) -> ApiResource {
    kelos_resource(version, "Task", kelos::TASKS)
}

/// One of Kelos' kinds.
pub(crate) fn kelos_resource(version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kelos::GROUP, version, kind), plural)
}

/// Keeps of a Task what accounting looks at, so that the cache stays small: no prompt, no outputs.
pub(crate) fn trim(object: &mut DynamicObject) {
    object.metadata.managed_fields = None;
    let keep = |value: Option<&Value>, fields: &[&str]| {
        let kept: Map<String, Value> = fields
            .iter()
            .filter_map(|field| Some(((*field).to_owned(), value?.get(*field)?.clone())))
            .collect();
        Value::Object(kept)
    };
    let spec = object.data.get("spec");
    let mut kept = keep(
        spec,
        &[
            "type",
            "ttlSecondsAfterFinished",
            "branch",
            "workerPoolRef",
            "workspaceRef",
            "agentConfigRefs",
        ],
    );
    if let Some(worker) = spec.and_then(|spec| spec.get("worker")) {
        kept["worker"] = keep(Some(worker), &["type", "workspaceRef", "agentConfigRefs"]);
    }
    let mut status = keep(
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

/// `object` as the JSON that the views read.
pub(crate) fn json_of(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("what was read as JSON can be written as JSON")
}

/// The namespace of `object`; Tasks always have one.
pub(crate) fn namespace_of(object: &Value) -> &str {
    Metadata::of(object).namespace().unwrap_or_default()
}
