//! A webhook configuration of either kind, and the apply of the bundle.

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams},
    core::Status,
};
use serde::Deserialize as _;
use serde_json::json;

use super::{CA_FIELD_MANAGER, InjectionState};
use crate::{
    resolver::{PublishedBundles, WebhookConfigurationKind},
    x509::CaBundle,
};

/// The prefix of the annotations that ask cert-manager's CA injector for a bundle.
const INJECTOR_ANNOTATION: &str = "cert-manager.io/inject-";
/// A part of the name of its field manager.
const INJECTOR_MANAGER: &str = "cainjector";

/// The resource of a kind of webhook configuration.
pub(super) fn resource(kind: WebhookConfigurationKind) -> ApiResource {
    match kind {
        WebhookConfigurationKind::Mutating => ApiResource::erase::<MutatingWebhookConfiguration>(&()),
        WebhookConfigurationKind::Validating => ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
    }
}

/// A webhook configuration as far as its bundles are concerned.
pub(super) struct WebhookConfiguration {
    metadata: ObjectMeta,
    /// The name and the bundle of each webhook, PEM; empty for a webhook without.
    webhooks: Vec<(String, Vec<u8>)>,
}

impl TryFrom<DynamicObject> for WebhookConfiguration {
    type Error = serde_json::Error;

    /// A validating webhook has the same fields as a mutating one, except the reinvocation policy.
    fn try_from(object: DynamicObject) -> serde_json::Result<Self> {
        let webhooks = Option::<Vec<MutatingWebhook>>::deserialize(&object.data["webhooks"])?;
        let bundle = |webhook: MutatingWebhook| {
            let bundle = webhook.client_config.ca_bundle.unwrap_or_default();
            (webhook.name, bundle.0)
        };
        Ok(Self {
            metadata: object.metadata,
            webhooks: webhooks.into_iter().flatten().map(bundle).collect(),
        })
    }
}

impl WebhookConfiguration {
    /// Whether every webhook trusts `bundle`.
    pub(super) fn carries(&self, bundle: &CaBundle) -> bool {
        self.webhooks.iter().all(|(_, published)| bundle.is_within(published))
    }

    /// The bundles that the configuration publishes.
    pub(super) fn published(&self) -> PublishedBundles {
        let mut bundles: Vec<_> = self.webhooks.iter().map(|(_, bundle)| bundle.clone()).collect();
        bundles.sort();
        bundles.dedup();
        PublishedBundles::Bundles(bundles.into())
    }

    /// Adds `bundle` to the published ones. `None` if the configuration changed since it was read: its watch will deliver the change.
    pub(super) async fn inject(
        &self,
        api: &Api<DynamicObject>,
        resource: &ApiResource,
        name: &str,
        bundle: &CaBundle,
    ) -> Option<InjectionState> {
        let published: Vec<_> = self.webhooks.iter().map(|(_, bundle)| bundle.as_slice()).collect();
        let merged = bundle.with(&published.join(&b'\n'), Timestamp::now());
        let webhooks: Vec<_> = self
            .webhooks
            .iter()
            .map(|(webhook, _)| json!({"name": webhook, "clientConfig": {"caBundle": ByteString(merged.pem().to_vec())}}))
            .collect();
        let patch = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            // With the UID and version that were read: the apply must neither recreate a deleted configuration, nor remove an
            // authority that was added meanwhile.
            "metadata": {"name": name, "uid": self.metadata.uid, "resourceVersion": self.metadata.resource_version},
            "webhooks": webhooks,
        });
        let mut params = PatchParams::apply(CA_FIELD_MANAGER);
        params.force = may_force(&self.metadata);
        let applied = api.patch(name, &params, &Patch::Apply(patch)).await;
        Some(match applied.map(Self::try_from) {
            Ok(Ok(applied)) if applied.carries(bundle) => InjectionState::Injected,
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
