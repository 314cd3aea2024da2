//! Whether the installed Kelos knows cancelled Tasks: the schema of its Tasks shows it, and may change while the controller runs.

use std::{future::pending, sync::atomic::Ordering, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
};
use serde_json::Value;
use taskgate_api::kelos;
use tokio::time::sleep;
use tracing::{debug, info};

use super::CancellationReconciler;
use crate::kubernetes::crd::while_installed;

/// Until the schema is read again after an error.
const RETRY: Duration = Duration::from_secs(3);

/// Reads the schema of Kelos' Tasks at the start and whenever it changes.
pub(crate) async fn follow_capability(reconciler: &CancellationReconciler) {
    let context = &reconciler.context;
    let name = format!("{}.{}", kelos::TASKS, kelos::GROUP);
    let kind = ApiResource::erase::<CustomResourceDefinition>(&());
    let crds = Api::<DynamicObject>::all_with(context.client.clone(), &kind);
    let read = || async {
        match crds.get(&name).await {
            Ok(crd) => {
                let known = knows_cancelled(&crd.data, &context.task_kind.version);
                if reconciler.knows_cancelled.swap(known, Ordering::Relaxed) != known {
                    info!(known, "whether Kelos knows cancelled Tasks changed");
                }
                // The next generation of the CRD is read anew.
                pending::<()>().await;
            }
            Err(error) => {
                debug!(%error, "Kelos' CRD cannot be read");
                sleep(RETRY).await;
            }
        }
    };
    while_installed(&context.client, &name, || {}, read).await;
}

/// Whether the Task of `version` in this CRD has `status.cancelledBy`, and a phase `Cancelled` if phases are listed.
pub fn knows_cancelled(crd: &Value, version: &str) -> bool {
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    let served = versions.into_iter().flatten().find(|served| served["name"] == version);
    let status = served.and_then(|served| served.pointer("/schema/openAPIV3Schema/properties/status/properties"));
    status.is_some_and(|status| {
        let phases = status.pointer("/phase/enum").and_then(Value::as_array);
        let listed = phases.is_none_or(|phases| phases.iter().any(|phase| phase == kelos::CANCELLED));
        listed && status.get("cancelledBy").is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_schema_of_the_served_version_decides() {
        let crd = |status: Value| {
            json!({"spec": {"versions": [{"name": "v1alpha2", "schema": {"openAPIV3Schema": {"properties": {
                "status": {"properties": status},
            }}}}]}})
        };
        let by = json!({"type": "string"});
        for (status, known) in [
            (json!({"phase": {"type": "string"}}), false),
            (json!({"phase": {"type": "string"}, "cancelledBy": by}), true),
            (
                json!({"phase": {"enum": ["Failed", "Cancelled"]}, "cancelledBy": by}),
                true,
            ),
            (json!({"phase": {"enum": ["Failed"]}, "cancelledBy": by}), false),
        ] {
            assert_eq!(knows_cancelled(&crd(status.clone()), "v1alpha2"), known, "{status}");
            assert!(!knows_cancelled(&crd(status), "v1alpha1"));
        }
    }
}
