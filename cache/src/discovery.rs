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

/// Whether a request failed without an answer, or the API server takes no requests for now. The client logs that.
pub fn is_unanswered(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 503 | 504),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}
