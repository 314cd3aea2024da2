//! Access to objects of the API server, without any rule of taskgate's own.
//!
//! - here: objects as JSON, reads by a name that another object states, writes that another client may have made first.
//! - `kelos`: whether Kelos is installed.
//! - `crd`: whether another project's CRD is installed.
//!
//! Imports nothing of this crate. Called by every other module.

pub(crate) mod crd;
pub(crate) mod kelos;

use std::fmt::Debug;

use jiff::Timestamp;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
    core::PartialObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use taskgate_api::{is_object_name, metadata::Metadata};

/// Reads the object of a name that a label, a field, an owner reference or a stored status states. A text that is no name finds
/// none, and is never sent.
pub(crate) async fn find<K>(api: &Api<K>, name: &str) -> kube::Result<Option<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    if is_object_name(name) {
        api.get_opt(name).await
    } else {
        Ok(None)
    }
}

/// Reads the metadata of the object of this name, in the same way.
pub(crate) async fn find_metadata<K>(api: &Api<K>, name: &str) -> kube::Result<Option<PartialObjectMeta<K>>>
where
    K: Clone + DeserializeOwned + Debug,
{
    if is_object_name(name) {
        api.get_metadata_opt(name).await
    } else {
        Ok(None)
    }
}

/// Parameters of a background delete that fails unless the object has this UID and resource version.
pub(crate) fn delete_only(uid: Option<String>, resource_version: Option<String>) -> DeleteParams {
    DeleteParams::background().preconditions(Preconditions { uid, resource_version })
}

/// The answer to a write, or `None` where the object is gone or another client wrote it first: then there is nothing left to write, or
/// a watch shows the object again.
pub(crate) fn settled<T>(answer: kube::Result<T>) -> kube::Result<Option<T>> {
    match answer {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All conditions of `object`, with `condition` instead of the one of its type.
pub(crate) fn with_condition(object: &Value, condition: Value) -> Vec<Value> {
    let stored = object.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = stored.cloned().unwrap_or_default();
    match conditions.iter_mut().find(|known| known["type"] == condition["type"]) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    conditions
}

/// `object` as the JSON that the views of `taskgate_api` read.
pub(crate) fn json_of(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("what was read as JSON can be written as JSON")
}

/// The namespace of `object`; namespaced objects always have one.
pub(crate) fn namespace_of(object: &Value) -> &str {
    Metadata::of(object).namespace().unwrap_or_default()
}

/// `time` as Kubernetes writes it: UTC, in whole seconds.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time.strftime("%FT%TZ").to_string()
}
