//! In which version the cluster serves the kinds of other projects.

use kube::{
    Client,
    api::{ApiResource, GroupVersionKind},
};
use taskgate_api::kelos;

/// One of Kelos' kinds.
pub fn kelos_resource(version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kelos::GROUP, version, kind), plural)
}

/// The first of `versions` in which the cluster serves kinds of `group`; `None` when it serves none of them.
pub async fn served_version(
    client: &Client,
    group: &str,
    versions: &[&'static str],
) -> kube::Result<Option<&'static str>> {
    let groups = client.list_api_groups().await?;
    let found = groups.groups.into_iter().find(|found| found.name == group);
    let served = found.map(|found| found.versions).unwrap_or_default();
    let mut known = versions.iter().copied();
    Ok(known.find(|known| served.iter().any(|version| version.version == *known)))
}
