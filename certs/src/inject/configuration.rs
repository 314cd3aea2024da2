//! What both kinds of webhook configuration have in common, and the apply of the bundle.

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

use super::{CA_FIELD_MANAGER, InjectionState};
use crate::{
    bundle::CaBundle,
    resolver::{PublishedBundles, WebhookConfigurationKind},
};

/// The prefix of the annotations that ask cert-manager's CA injector for a bundle.
const INJECTOR_ANNOTATION: &str = "cert-manager.io/inject-";
/// A part of the name of its field manager.
const INJECTOR_MANAGER: &str = "cainjector";

/// The bundles that a configuration publishes.
pub(super) fn published<K: WebhookConfiguration>(found: Option<&K>) -> PublishedBundles {
    let Some(found) = found else {
        return PublishedBundles::Absent;
    };
    let mut bundles: Vec<_> = found
        .bundles()
        .map(|(_, bundle)| bundle.map(|bundle| bundle.0.clone()).unwrap_or_default())
        .collect();
    bundles.sort();
    bundles.dedup();
    PublishedBundles::Bundles(bundles.into())
}

/// Adds `bundle` to the published ones. `None` if the configuration changed since it was `found`: its watch will deliver the change.
pub(super) async fn inject<K: WebhookConfiguration>(
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
        // With the UID and version that were read: the apply must neither recreate a deleted configuration, nor remove an
        // authority that was added meanwhile.
        "metadata": {"name": name, "uid": found.metadata().uid, "resourceVersion": found.metadata().resource_version},
        "webhooks": webhooks,
    });
    let mut params = PatchParams::apply(CA_FIELD_MANAGER);
    params.force = may_force(found.metadata());
    Some(match api.patch(name, &params, &Patch::Apply(patch)).await {
        Ok(applied) if applied.carries(bundle) => InjectionState::Injected,
        Ok(_) => InjectionState::Failed("the API server accepted the bundle but returned another".to_owned()),
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "Conflict" => {
            if !is_field_manager_conflict(&status) {
                return None;
            }
            InjectionState::Conflict(status.message.clone())
        }
        Err(kube::Error::Api(status)) => InjectionState::Failed(status.message.clone()),
        Err(problem) => InjectionState::Failed(problem.to_string()),
    })
}

/// Whether an applied field belongs to another manager. Other conflicts are about the version.
fn is_field_manager_conflict(conflict: &Status) -> bool {
    let causes = conflict.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "FieldManagerConflict")
}

/// Whether the apply may force its ownership: no other manager applies a bundle. The field was last written manually, or by a CA
/// injector that is no longer asked to.
fn may_force(metadata: &ObjectMeta) -> bool {
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
            manager == CA_FIELD_MANAGER || manager.contains(INJECTOR_MANAGER) || !is_applied
        })
}

/// A kind of webhook configuration.
pub(super) trait WebhookConfiguration:
    k8s_openapi::Resource<Scope = ClusterResourceScope>
    + Metadata<Ty = ObjectMeta>
    + Clone
    + fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const CONFIGURATION: WebhookConfigurationKind;

    /// The name and the bundle of each webhook.
    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)>;

    /// Whether every webhook trusts `bundle`.
    fn carries(&self, bundle: &CaBundle) -> bool {
        self.bundles()
            .all(|(_, published)| published.is_some_and(|published| bundle.is_within(&published.0)))
    }
}

impl WebhookConfiguration for MutatingWebhookConfiguration {
    const CONFIGURATION: WebhookConfigurationKind = WebhookConfigurationKind::Mutating;

    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), webhook.client_config.ca_bundle.as_ref()))
    }
}

impl WebhookConfiguration for ValidatingWebhookConfiguration {
    const CONFIGURATION: WebhookConfigurationKind = WebhookConfigurationKind::Validating;

    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), webhook.client_config.ca_bundle.as_ref()))
    }
}
