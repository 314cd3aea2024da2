//! Loads the objects of a live cluster that decisions depend on.
//!
//! RBAC: `list` on [`KINDS`], cluster-wide; a kind that may not be listed cluster-wide is listed in one namespace.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::Value;
use taskgate_api::{GROUP, VERSION, kelos, kueue};

/// The number of objects per page.
const PAGE: u32 = 500;

/// The kinds: group, known versions, kind, whether namespaced.
const KINDS: [(&str, &[&str], &str, bool); 13] = [
    ("", V1, "Namespace", false),
    (GROUP, &[VERSION], "TaskPolicy", true),
    (GROUP, &[VERSION], "ClusterTaskPolicy", false),
    (GROUP, &[VERSION], "WorkItem", true),
    (kelos::GROUP, &kelos::TASK_VERSIONS, "TaskSpawner", true),
    (kelos::GROUP, &kelos::TASK_VERSIONS, "Workspace", true),
    (kelos::GROUP, &kelos::TASK_VERSIONS, "Task", true),
    (kueue::GROUP, &kueue::VERSIONS, "LocalQueue", true),
    (kueue::GROUP, &kueue::VERSIONS, "WorkloadPriorityClass", false),
    ("", V1, "ConfigMap", true),
    (ADMISSION, V1, "MutatingWebhookConfiguration", false),
    (ADMISSION, V1, "ValidatingWebhookConfiguration", false),
    ("apiextensions.k8s.io", V1, "CustomResourceDefinition", false),
];
const V1: &[&str] = &["v1"];
const ADMISSION: &str = "admissionregistration.k8s.io";

/// A kind cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list {plural}: {}", reason(source))]
pub struct LoadError {
    /// The kind, in the plural.
    pub plural: String,
    /// The error.
    pub source: Box<kube::Error>,
}

/// The API server's message, or why there is none.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Loads the objects, and an error for each kind that may not be listed. Errors when the API server does not answer.
pub async fn load(client: &Client, namespace: &str) -> Result<(Vec<Value>, Vec<LoadError>), LoadError> {
    let mut objects = Vec::new();
    let mut forbidden = Vec::new();
    let groups = client.list_api_groups().await.map_err(|error| LoadError {
        plural: "API groups".to_owned(),
        source: Box::new(error),
    })?;
    let is_served = |group: &str, version: &str| {
        let mut groups = groups.groups.iter().filter(|served| served.name == group);
        groups.any(|served| served.versions.iter().any(|served| served.version == version))
    };
    for (group, versions, kind, namespaced) in KINDS {
        // The core group is not listed, and where no version is served, the list below says so.
        let served = versions.iter().find(|version| is_served(group, version));
        let version = served.or(versions.first()).copied().unwrap_or_default();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let everywhere = Api::<DynamicObject>::all_with(client.clone(), &resource);
        // Only one ConfigMap is needed.
        let params = match kind {
            "ConfigMap" => ListParams::default().fields("metadata.name=kueue-manager-config"),
            _ => ListParams::default(),
        };
        let mut listed = list(&everywhere, &params, &resource).await;
        if namespaced && listed.as_ref().is_err_and(|error| has_code(error, 403)) {
            let here = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
            listed = list(&here, &params, &resource).await;
        }
        match listed {
            Ok(found) => objects.extend(found),
            Err(error) if has_code(&error, 404) => {}
            Err(error) => {
                let is_forbidden = has_code(&error, 403);
                let failed = LoadError {
                    plural: resource.plural,
                    source: Box::new(error),
                };
                if !is_forbidden {
                    return Err(failed);
                }
                forbidden.push(failed);
            }
        }
    }
    Ok((objects, forbidden))
}

/// Lists all objects of `api`, page by page, each with its kind.
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
