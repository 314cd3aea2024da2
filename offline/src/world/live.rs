//! The objects of a live cluster that verdicts rest on, read once.
//!
//! RBAC: `list` on what stands in [`KINDS`], cluster-wide; what may not be listed everywhere is listed in one namespace.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::Value;
use taskgate_api::{GROUP, VERSION, kelos, kueue};

/// How many objects are asked for at once.
const PAGE: u32 = 500;

/// What is read: group, version, kind, plural, whether it lives in a namespace.
const KINDS: [(&str, &str, &str, &str, bool); 13] = [
    ("", "v1", "Namespace", "namespaces", false),
    (GROUP, VERSION, "TaskPolicy", "taskpolicies", true),
    (GROUP, VERSION, "ClusterTaskPolicy", "clustertaskpolicies", false),
    (GROUP, VERSION, "WorkItem", "workitems", true),
    (
        kelos::GROUP,
        kelos::TASK_VERSIONS[0],
        "TaskSpawner",
        "taskspawners",
        true,
    ),
    (kelos::GROUP, kelos::TASK_VERSIONS[0], "Workspace", "workspaces", true),
    (kelos::GROUP, kelos::TASK_VERSIONS[0], "Task", kelos::TASKS, true),
    (
        kueue::GROUP,
        kueue::VERSIONS[0],
        "LocalQueue",
        kueue::LOCAL_QUEUES,
        true,
    ),
    (
        kueue::GROUP,
        kueue::VERSIONS[0],
        "WorkloadPriorityClass",
        kueue::PRIORITY_CLASSES,
        false,
    ),
    ("", "v1", "ConfigMap", "configmaps", true),
    (
        ADMISSION,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    ),
    (
        ADMISSION,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        false,
    ),
];
const ADMISSION: &str = "admissionregistration.k8s.io";

/// A kind cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list {plural}: {reason}")]
pub struct LoadError {
    /// The kind, in the plural.
    pub plural: &'static str,
    /// What the API server said.
    pub reason: String,
    /// The error itself.
    #[source]
    pub source: Box<kube::Error>,
}

/// Reads what verdicts rest on. Errors when the API server does not answer; a kind that may not be read is told among the
/// notes, and nothing is known of it.
pub async fn load(client: &Client, namespace: &str) -> Result<(Vec<Value>, Vec<LoadError>), LoadError> {
    let mut objects = Vec::new();
    let mut notes = Vec::new();
    for (group, version, kind, plural, namespaced) in KINDS {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let everywhere = Api::<DynamicObject>::all_with(client.clone(), &resource);
        // Of all ConfigMaps one is of interest.
        let only = if kind == "ConfigMap" {
            ListParams::default().fields("metadata.name=kueue-manager-config")
        } else {
            ListParams::default()
        };
        let mut listed = list(&everywhere, &only, &resource).await;
        if let (Err(kube::Error::Api(status)), true) = (&listed, namespaced)
            && status.code == 403
        {
            let here = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
            listed = list(&here, &only, &resource).await;
        }
        match listed {
            Ok(found) => objects.extend(found),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                let reason = match &error {
                    kube::Error::Api(status) => status.message.clone(),
                    error => error.to_string(),
                };
                let is_answer = matches!(&error, kube::Error::Api(status) if status.code == 403);
                let failed = LoadError {
                    plural,
                    reason,
                    source: Box::new(error),
                };
                if !is_answer {
                    return Err(failed);
                }
                notes.push(failed);
            }
        }
    }
    Ok((objects, notes))
}

/// Everything that `api` lists, page by page, each object with its kind.
async fn list(
    api: &Api<DynamicObject>,
    params: &ListParams,
    resource: &ApiResource,
) -> Result<Vec<Value>, kube::Error> {
    let mut params = params.clone().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await?;
        for mut object in page.items {
            object.metadata.managed_fields = None;
            let mut object = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
            object["apiVersion"] = resource.api_version.as_str().into();
            object["kind"] = resource.kind.as_str().into();
            found.push(object);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}
