//! Kelos' kinds, and in which version the cluster serves them.

use kube::{
    Client,
    api::{ApiResource, GroupVersionKind},
};
use taskgate_api::kelos;

/// One of Kelos' kinds.
pub fn kelos_resource(version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kelos::GROUP, version, kind), plural)
}

/// The version of Kelos' Tasks that the cluster serves; `None` when Kelos is not installed.
pub async fn served_version(client: &Client) -> kube::Result<Option<&'static str>> {
    let groups = client.list_api_groups().await?;
    let group = groups.groups.into_iter().find(|group| group.name == kelos::GROUP);
    let served = group.map(|group| group.versions).unwrap_or_default();
    let mut known = kelos::TASK_VERSIONS.into_iter();
    Ok(known.find(|known| served.iter().any(|version| version.version == *known)))
}
