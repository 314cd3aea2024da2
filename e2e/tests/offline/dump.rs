//! All inputs of the decisions, as files contain them.

use anyhow::Context as _;
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use taskgate_e2e::ControlPlane;

/// What `kubectl get … -o yaml` would write.
pub(crate) async fn all(cp: &ControlPlane) -> anyhow::Result<Vec<Value>> {
    let client = cp.client();
    let mut found = Vec::new();
    for (group, version, kind) in [
        ("", "v1", "Namespace"),
        ("", "v1", "ConfigMap"),
        ("batch", "v1", "Job"),
        ("taskgate.dev", "v1alpha1", "TaskPolicy"),
        ("taskgate.dev", "v1alpha1", "ClusterTaskPolicy"),
        ("taskgate.dev", "v1alpha1", "WorkItem"),
        ("kelos.dev", "v1alpha2", "Task"),
        ("kelos.dev", "v1alpha2", "TaskSpawner"),
        ("kelos.dev", "v1alpha2", "Workspace"),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        ("kueue.x-k8s.io", "v1beta2", "LocalQueue"),
        ("kueue.x-k8s.io", "v1beta2", "WorkloadPriorityClass"),
        ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration"),
    ] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        // Of all ConfigMaps one is of interest.
        let only = match kind {
            "ConfigMap" => ListParams::default().fields("metadata.name=kueue-manager-config"),
            _ => ListParams::default(),
        };
        let listed = Api::<DynamicObject>::all_with(client.clone(), &resource)
            .list(&only)
            .await;
        if group == "kueue.x-k8s.io" && is_absent(&listed) {
            continue;
        }
        for mut object in listed.with_context(|| kind.to_owned())? {
            object.managed_fields_mut().clear();
            let mut object = serde_json::to_value(object)?;
            object["apiVersion"] = json!(resource.api_version);
            object["kind"] = json!(kind);
            found.push(object);
        }
    }
    Ok(found)
}

fn is_absent<T>(answer: &kube::Result<T>) -> bool {
    matches!(answer, Err(kube::Error::Api(status)) if status.code == 404)
}
