//! Kelos' kinds: which version of them the cluster serves, and the fields of a Task that the cache keeps.

use std::time::Duration;

use kube::{
    Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use taskgate_api::{condition::QUEUED, kelos};
use tokio::time::sleep;
use tracing::debug;

use super::only_fields;

/// Until the API server is asked again after an error.
const RETRY: Duration = Duration::from_secs(3);
/// Between two checks whether Kelos is installed by now.
const ABSENT_RETRY: Duration = Duration::from_secs(15);

/// Kelos' Task in `version`.
pub(crate) fn task_resource(version: &str) -> ApiResource {
    kelos_resource(version, "Task", kelos::TASKS)
}

/// One of Kelos' kinds.
pub(crate) fn kelos_resource(version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kelos::GROUP, version, kind), plural)
}

/// The version of Kelos' Tasks that the cluster serves; `None` when Kelos is not installed.
pub(crate) async fn served_version(client: &Client) -> Option<&'static str> {
    loop {
        match client.list_api_groups().await {
            Ok(groups) => {
                let group = groups.groups.into_iter().find(|group| group.name == kelos::GROUP);
                let served = group.map(|group| group.versions).unwrap_or_default();
                return kelos::TASK_VERSIONS
                    .into_iter()
                    .find(|known| served.iter().any(|version| version.version == *known));
            }
            Err(error) => debug!(%error, "the API server does not answer whether Kelos is installed"),
        }
        sleep(RETRY).await;
    }
}

/// Waits until Kelos is installed; the version of its Tasks that the cluster serves.
pub(crate) async fn wait_until_installed(client: &Client) -> &'static str {
    loop {
        if let Some(version) = served_version(client).await {
            return version;
        }
        sleep(ABSENT_RETRY).await;
    }
}

/// Removes from a Task what no reconcile reads, so that the cache stays small: prompt and outputs among them.
pub(crate) fn trim_task(object: &mut DynamicObject) {
    object.metadata.managed_fields = None;
    let spec = object.data.get("spec");
    let mut kept = only_fields(
        spec,
        &[
            "type",
            "ttlSecondsAfterFinished",
            "branch",
            "workerPoolRef",
            "workspaceRef",
            "agentConfigRefs",
        ],
    );
    if let Some(worker) = spec.and_then(|spec| spec.get("worker")) {
        kept["worker"] = only_fields(Some(worker), &["type", "workspaceRef", "agentConfigRefs"]);
    }
    let mut status = only_fields(
        object.data.get("status"),
        &[
            "phase",
            "jobName",
            "podName",
            "startTime",
            "completionTime",
            "message",
            "cancelledBy",
            "usage",
        ],
    );
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let queued = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == QUEUED);
    if let Some(queued) = queued {
        status["conditions"] = json!([queued]);
    }
    object.data = json!({"spec": kept, "status": status});
}
