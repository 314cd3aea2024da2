//! What is kept of each object: what [`taskgate_policy::queue_state`] looks at, and no pod template.

use kube::api::DynamicObject;
use serde_json::{Map, Value, json};

fn keep(value: Option<&Value>, fields: &[&str]) -> Value {
    let kept: Map<String, Value> = fields
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), value?.get(*field)?.clone())))
        .collect();
    Value::Object(kept)
}

fn trim(object: &mut DynamicObject, spec: &[&str], status: &[&str]) {
    object.metadata.managed_fields = None;
    object.data =
        json!({"spec": keep(object.data.get("spec"), spec), "status": keep(object.data.get("status"), status)});
}

pub(super) fn job(object: &mut DynamicObject) {
    trim(object, &["suspend"], &["conditions"]);
}

pub(super) fn workload(object: &mut DynamicObject) {
    trim(object, &["active"], &["conditions", "admissionChecks", "admission"]);
    // The rest tells which flavor each pod set got.
    let admission = keep(object.data.pointer("/status/admission"), &["clusterQueue"]);
    object.data["status"]["admission"] = admission;
}

pub(super) fn local_queue(object: &mut DynamicObject) {
    trim(object, &["stopPolicy"], &["conditions"]);
}

pub(super) fn bare(object: &mut DynamicObject) {
    trim(object, &[], &[]);
}
