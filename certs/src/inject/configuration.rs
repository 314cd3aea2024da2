//! The two kinds of webhook configuration, as far as they are alike, and what is written into one.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::{
    ByteString, ClusterResourceScope, Metadata,
    api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::Status,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{InjectionState, MANAGER, Target};
use crate::{CaBundle, trust::Published};

/// What the annotations by which cert-manager's CA injector is asked for a bundle start with.
const INJECTOR_ANNOTATION: &str = "cert-manager.io/inject-";
/// What its field manager is called, in part.
const INJECTOR_MANAGER: &str = "cainjector";

/// What a configuration tells the API server to trust.
pub(super) fn published<K: Configuration>(found: Option<&K>) -> Published {
    let Some(found) = found else {
        return Published::Absent;
    };
    let mut bundles: Vec<_> = found
        .bundles()
        .map(|(_, bundle)| bundle.map(|bundle| bundle.0.clone()).unwrap_or_default())
        .collect();
    bundles.sort();
    bundles.dedup();
    Published::Bundles(bundles.into())
}

/// Adds `bundle` to what is there. `None`: it is not `found` any more, and what others added meanwhile must not go. Its watch shows
/// it soon.
pub(super) async fn inject<K: Configuration>(
    api: &Api<K>,
    name: &str,
    found: &K,
    bundle: &CaBundle,
) -> Option<InjectionState> {
    let mut others = Vec::new();
    for (_, published) in found.bundles() {
        others.extend_from_slice(published.map(|published| published.0.as_slice()).unwrap_or_default());
        others.push(b'\n');
    }
    let merged = bundle.with(&others, Timestamp::now());
    let webhooks: Vec<_> = found
        .bundles()
        .map(|(webhook, _)| json!({"name": webhook, "clientConfig": {"caBundle": ByteString(merged.pem().to_vec())}}))
        .collect();
    let patch = json!({
        "apiVersion": K::API_VERSION,
        "kind": K::KIND,
        // Of exactly this object as it was found: an apply must neither bring back one that was deleted meanwhile, nor take away
        // an authority that came meanwhile.
        "metadata": {"name": name, "uid": found.metadata().uid, "resourceVersion": found.metadata().resource_version},
        "webhooks": webhooks,
    });
    let mut params = PatchParams::apply(MANAGER);
    params.force = is_ours_to_mend(found.metadata());
    Some(match api.patch(name, &params, &Patch::Apply(patch)).await {
        Ok(applied) if applied.carries(bundle) => InjectionState::Carried,
        Ok(_) => InjectionState::Failed("the API server took the bundle and shows another".to_owned()),
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "Conflict" => {
            if !is_about_managers(&status) {
                return None;
            }
            InjectionState::Conflict(status.message.clone())
        }
        Err(kube::Error::Api(status)) => InjectionState::Failed(status.message.clone()),
        Err(problem) => InjectionState::Failed(problem.to_string()),
    })
}

/// Whether a field that was applied belongs to somebody else. Other conflicts are about the version.
fn is_about_managers(conflict: &Status) -> bool {
    let causes = conflict.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "FieldManagerConflict")
}

/// Whether nobody declares a bundle there: it was last written by hand, or by a CA injector that is not asked any more.
fn is_ours_to_mend(metadata: &ObjectMeta) -> bool {
    let mut annotations = metadata.annotations.iter().flatten();
    if annotations.any(|(key, _)| key.starts_with(INJECTOR_ANNOTATION)) {
        return false;
    }
    let entries = metadata.managed_fields.iter().flatten();
    entries
        .filter(|entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| fields.0.to_string());
            fields.is_some_and(|fields| fields.contains("\"f:caBundle\""))
        })
        .all(|entry| {
            let manager = entry.manager.as_deref().unwrap_or_default();
            let is_applied = entry.operation.as_deref() == Some("Apply");
            manager == MANAGER || manager.contains(INJECTOR_MANAGER) || !is_applied
        })
}

/// What the two kinds of configuration have in common.
pub(super) trait Configuration:
    k8s_openapi::Resource<Scope = ClusterResourceScope>
    + Metadata<Ty = ObjectMeta>
    + Clone
    + fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const TARGET: Target;

    /// The name and the bundle of each webhook.
    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)>;

    /// Whether every webhook trusts `bundle`.
    fn carries(&self, bundle: &CaBundle) -> bool {
        self.bundles()
            .all(|(_, published)| published.is_some_and(|published| bundle.is_within(&published.0)))
    }
}

impl Configuration for MutatingWebhookConfiguration {
    const TARGET: Target = Target::Mutating;

    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), webhook.client_config.ca_bundle.as_ref()))
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    const TARGET: Target = Target::Validating;

    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), webhook.client_config.ca_bundle.as_ref()))
    }
}
