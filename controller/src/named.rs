//! Reads by a name that another object states: a label, a field, an owner reference, a stored status.

use std::fmt::Debug;

use kube::{Api, core::PartialObjectMeta};
use serde::de::DeserializeOwned;
use taskgate_api::is_object_name;

/// The object of this name. A text that is no name finds none, and is never sent.
pub(crate) async fn object<K>(api: &Api<K>, name: &str) -> kube::Result<Option<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    if is_object_name(name) {
        api.get_opt(name).await
    } else {
        Ok(None)
    }
}

/// The metadata of the object of this name, in the same way.
pub(crate) async fn metadata<K>(api: &Api<K>, name: &str) -> kube::Result<Option<PartialObjectMeta<K>>>
where
    K: Clone + DeserializeOwned + Debug,
{
    if is_object_name(name) {
        api.get_metadata_opt(name).await
    } else {
        Ok(None)
    }
}
