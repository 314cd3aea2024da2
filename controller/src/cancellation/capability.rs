//! What the status of the installed Kelos' Tasks has for a cancelled one: the schema shows it, and may change while the controller
//! runs.

use std::{future::pending, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
};
use serde_json::Value;
use taskgate_api::{kelos, kelos_fields::MARKER};
use tokio::time::sleep;
use tracing::{debug, info};

use super::CancellationReconciler;
use crate::kubernetes::crd::while_installed;

/// Until the schema is read again after an error.
const RETRY: Duration = Duration::from_secs(3);

/// What the status of a Task has for a cancelled one, besides conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CancelledFields {
    /// Nothing.
    #[default]
    None,
    /// `status.cancelledBy`, which taskgate added to Kelos' schema. Kelos does not know the phase `Cancelled`, and would create
    /// the Job of a Task with it again.
    Requester,
    /// `status.cancelledBy` and the phase `Cancelled`, which are Kelos' own.
    Phase,
}

/// Reads the schema of Kelos' Tasks at the start and whenever it changes.
pub(crate) async fn follow_capability(reconciler: &CancellationReconciler) {
    let context = &reconciler.context;
    let name = format!("{}.{}", kelos::TASKS, kelos::GROUP);
    let kind = ApiResource::erase::<CustomResourceDefinition>(&());
    let crds = Api::<DynamicObject>::all_with(context.client.clone(), &kind);
    let read = || async {
        match crds.get(&name).await {
            Ok(crd) => {
                let fields = cancelled_fields(&crd.data, &context.task_kind.version);
                if std::mem::replace(&mut *reconciler.cancelled_fields.lock(), fields) != fields {
                    info!(?fields, "what Kelos' Tasks have for a cancelled one changed");
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

/// What the status of a Task of `version` in this CRD has for a cancelled one. If phases are listed, `Cancelled` must be among
/// them.
pub fn cancelled_fields(crd: &Value, version: &str) -> CancelledFields {
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    let served = versions.into_iter().flatten().find(|served| served["name"] == version);
    let status = served.and_then(|served| served.pointer("/schema/openAPIV3Schema/properties/status/properties"));
    let Some((status, field)) = status.and_then(|status| Some((status, status.get("cancelledBy")?))) else {
        return CancelledFields::None;
    };
    let phases = status.pointer("/phase/enum").and_then(Value::as_array);
    let is_listed = phases.is_none_or(|phases| phases.iter().any(|phase| phase == kelos::CANCELLED));
    let description = field["description"].as_str().unwrap_or_default();
    match (description.ends_with(MARKER), is_listed) {
        (true, _) => CancelledFields::Requester,
        (false, true) => CancelledFields::Phase,
        (false, false) => CancelledFields::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use taskgate_api::kelos_fields::KelosField;

    #[test]
    fn the_schema_of_the_served_version_decides() {
        let crd = |status: Value| {
            json!({"spec": {"versions": [{"name": "v1alpha2", "schema": {"openAPIV3Schema": {"properties": {
                "status": {"properties": status},
            }}}}]}})
        };
        let by = json!({"type": "string"});
        let added = KelosField::CancelledBy.schema();
        for (status, fields) in [
            (json!({"phase": {"type": "string"}}), CancelledFields::None),
            (
                json!({"phase": {"type": "string"}, "cancelledBy": by}),
                CancelledFields::Phase,
            ),
            (
                json!({"phase": {"enum": ["Failed", "Cancelled"]}, "cancelledBy": by}),
                CancelledFields::Phase,
            ),
            (
                json!({"phase": {"enum": ["Failed"]}, "cancelledBy": by}),
                CancelledFields::None,
            ),
            (
                json!({"phase": {"type": "string"}, "cancelledBy": added}),
                CancelledFields::Requester,
            ),
        ] {
            assert_eq!(cancelled_fields(&crd(status.clone()), "v1alpha2"), fields, "{status}");
            assert_eq!(cancelled_fields(&crd(status), "v1alpha1"), CancelledFields::None);
        }
    }
}
