//! A write that somebody is about to ask for: the object, who asks, and what is to be done.

use serde::Deserialize;
use serde_json::{Value, json};
use taskgate_api::metadata::Metadata;
use taskgate_webhook::{
    ObjectKind, ReviewOperation, ReviewRequest, UserInfo,
    rules::{Admitted, ENDPOINTS},
};

/// What metadata a new object never has: the API server sets it (and drops what the creator says).
const SET_BY_SERVER: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// A request to the API server, before it was sent anywhere.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What is to be done.
    pub operation: ReviewOperation,
    /// The kind of the object.
    pub kind: ObjectKind,
    /// The plural of the kind; `None` for kinds that taskgate does not know.
    pub resource: Option<String>,
    /// `status` and the like; mostly empty.
    pub subresource: String,
    /// The namespace; empty for what lives in none.
    pub namespace: String,
    /// The object's name; empty when it is to be generated.
    pub name: String,
    /// Who asks.
    pub user: UserInfo,
    /// The object as it is to be; null on DELETE.
    pub object: Value,
    /// The object as it is; null on CREATE.
    pub old: Value,
    /// Whether the object has been through the API server before, so that its fields need no checking.
    pub recorded: bool,
}

/// What is assumed where a document does not say.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Who asks.
    pub user: UserInfo,
    /// The namespace of objects that name none.
    pub namespace: String,
}

impl Default for Defaults {
    /// `kubernetes-admin`, as kubeadm and kind name it, in namespace `default`.
    fn default() -> Self {
        Self {
            user: UserInfo {
                username: "kubernetes-admin".to_owned(),
                groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
                ..UserInfo::default()
            },
            namespace: "default".to_owned(),
        }
    }
}

/// A document is called an AdmissionReview and is none that can be judged.
#[derive(Debug, thiserror::Error)]
#[error("no AdmissionReview with a request: {0}")]
pub struct NoReview(String);

impl Proposal {
    /// What `object`, a document, proposes: its creation; an AdmissionReview proposes what it recorded.
    pub fn of(object: Value, defaults: &Defaults) -> Result<Self, NoReview> {
        if object["kind"] == "AdmissionReview" {
            Self::recorded(object)
        } else {
            Ok(Self::create(object, defaults))
        }
    }

    /// The creation of `object`, as if it were new: what the API server once set on it is taken off, as it drops what is
    /// empty in `metadata`.
    pub fn create(mut object: Value, defaults: &Defaults) -> Self {
        let kind = kind_of(&object);
        let admitted = admitted(&kind);
        drop_empty(&mut object);
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !SET_BY_SERVER.contains(&field.as_str()));
        }
        if let (Some(admitted), Some(fields)) = (admitted, object.as_object_mut()) {
            let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
            if admitted.namespaced && Metadata::of(&json!({"metadata": &*metadata})).namespace().is_none() {
                metadata["namespace"] = defaults.namespace.as_str().into();
            } else if let (false, Some(metadata)) = (admitted.namespaced, metadata.as_object_mut()) {
                metadata.remove("namespace");
            }
        }
        let metadata = Metadata::of(&object);
        Self {
            operation: ReviewOperation::Create,
            resource: admitted.map(|admitted| admitted.resource.to_owned()),
            subresource: String::new(),
            namespace: metadata.namespace().unwrap_or_default().to_owned(),
            name: metadata.name().unwrap_or_default().to_owned(),
            user: defaults.user.clone(),
            kind,
            old: Value::Null,
            recorded: false,
            object,
        }
    }

    /// What the AdmissionReview `review` recorded, or what somebody made of it since.
    fn recorded(mut review: Value) -> Result<Self, NoReview> {
        #[derive(Deserialize)]
        struct More {
            #[serde(default)]
            resource: Resource,
            #[serde(default, rename = "subResource")]
            subresource: String,
        }
        #[derive(Default, Deserialize)]
        struct Resource {
            #[serde(default)]
            resource: String,
        }
        let request = review["request"].take();
        let more = More::deserialize(&request).map_err(|error| NoReview(error.to_string()))?;
        let mut request = ReviewRequest::deserialize(request).map_err(|error| NoReview(error.to_string()))?;
        drop_empty(&mut request.object);
        drop_empty(&mut request.old_object);
        let resource = Some(more.resource.resource).filter(|resource| !resource.is_empty());
        let known = admitted(&request.kind).map(|admitted| admitted.resource.to_owned());
        Ok(Self {
            operation: request.operation,
            resource: resource.or(known),
            subresource: more.subresource,
            namespace: request.namespace,
            name: request.name,
            user: request.user_info,
            kind: request.kind,
            object: request.object,
            old: request.old_object,
            recorded: true,
        })
    }

    /// The kind with its group and version, as `apiVersion kind`.
    pub fn kind_name(&self) -> String {
        let ObjectKind { group, version, kind } = &self.kind;
        match group.as_str() {
            "" => format!("{version} {kind}"),
            group => format!("{group}/{version} {kind}"),
        }
    }

    /// The request as taskgate gets it.
    pub(crate) fn review(&self) -> ReviewRequest {
        ReviewRequest {
            uid: "offline".to_owned(),
            kind: self.kind.clone(),
            operation: self.operation,
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            user_info: self.user.clone(),
            object: self.object.clone(),
            old_object: self.old.clone(),
            dry_run: Some(true),
        }
    }
}

/// Drops what is empty in `metadata`, as the API server does before it sends an object anywhere.
fn drop_empty(object: &mut Value) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !empty(value));
    }
}

/// The kind that `object` says it is.
pub(crate) fn kind_of(object: &Value) -> ObjectKind {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    ObjectKind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: object["kind"].as_str().unwrap_or_default().to_owned(),
    }
}

/// What taskgate knows of a kind, in any version.
pub(crate) fn admitted(kind: &ObjectKind) -> Option<&'static Admitted> {
    let admitted = ENDPOINTS.iter().flat_map(|endpoint| endpoint.admitted);
    admitted
        .into_iter()
        .find(|admitted| admitted.group == kind.group && admitted.name == kind.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_a_cluster_is_judged_as_if_it_were_new() {
        let object = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": "a", "uid": "u",
            "resourceVersion": "1", "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {"b": "c"}, "annotations": {}, "finalizers": null}});
        let proposal = Proposal::of(object, &Defaults::default()).unwrap();
        assert_eq!(
            proposal.object["metadata"],
            json!({"name": "a", "namespace": "default", "labels": {"b": "c"}})
        );
        assert_eq!((proposal.namespace.as_str(), proposal.name.as_str()), ("default", "a"));
    }

    #[test]
    fn what_a_review_recorded_is_taken_as_it_is() {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": "kelos.dev", "version": "v1alpha2", "kind": "Task"},
            "resource": {"group": "kelos.dev", "version": "v1alpha2", "resource": "tasks"}, "subResource": "status",
            "operation": "UPDATE", "name": "a", "namespace": "team", "userInfo": {"username": "ann"},
            "object": {"metadata": {"uid": "u", "labels": {}}}, "oldObject": {"metadata": {}}}});
        let proposal = Proposal::of(review, &Defaults::default()).unwrap();
        assert_eq!(
            (proposal.operation_name(), proposal.subresource.as_str()),
            ("UPDATE", "status")
        );
        assert_eq!(
            (proposal.user.username.as_str(), &proposal.object["metadata"]),
            ("ann", &json!({"uid": "u"}))
        );
        let empty = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
        assert!(Proposal::of(empty, &Defaults::default()).is_err());
    }
}
