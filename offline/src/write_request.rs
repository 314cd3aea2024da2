//! A write request to the API server, before it is sent: the object, the user and the operation.

use k8s_openapi::api::authentication::v1::UserInfo;
use serde::Deserialize;
use serde_json::{Value, json};
use taskgate_api::metadata::Metadata;
use taskgate_policy::Operation;
use taskgate_webhook::{
    ObjectKind, ReviewRequest,
    rules::{AdmittedKind, ENDPOINTS},
};

use crate::schema::{drop_empty, kind_of};

/// The metadata fields that only the API server sets; it drops a creator's values.
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

/// A write request to the API server.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// The request as the API server sends it to webhooks. The name is empty when it is to be generated.
    pub review: ReviewRequest,
    /// The plural of the kind; `None` for unknown kinds.
    pub resource: Option<String>,
    /// Whether the request was recorded by an API server, so that unknown fields are no errors.
    pub recorded: bool,
}

/// The user and namespace of requests from documents that do not name them.
#[derive(Clone, Debug)]
pub struct RequestDefaults {
    /// The requesting user.
    pub user: UserInfo,
    /// The namespace of objects that name none.
    pub namespace: String,
}

impl Default for RequestDefaults {
    /// `kubernetes-admin`, as kubeadm and kind name it, in namespace `default`.
    fn default() -> Self {
        Self {
            user: UserInfo {
                username: Some("kubernetes-admin".to_owned()),
                groups: Some(vec!["system:masters".to_owned(), "system:authenticated".to_owned()]),
                ..UserInfo::default()
            },
            namespace: "default".to_owned(),
        }
    }
}

/// An AdmissionReview without a valid request.
#[derive(Debug, thiserror::Error)]
#[error("no AdmissionReview with a request: {0}")]
pub struct InvalidReview(String);

impl WriteRequest {
    /// The request in a document: the recorded one of an AdmissionReview, otherwise the creation of `object`.
    pub fn of(object: Value, defaults: &RequestDefaults) -> Result<Self, InvalidReview> {
        if object["kind"] == "AdmissionReview" {
            Self::recorded(object)
        } else {
            Ok(Self::create(object, defaults))
        }
    }

    /// The creation of `object` as a new one: without the metadata that the API server sets, and without empty fields in
    /// `metadata`, which the API server drops.
    pub fn create(mut object: Value, defaults: &RequestDefaults) -> Self {
        let kind = kind_of(&object);
        let admitted = admitted(&kind);
        drop_empty(&mut object);
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !SET_BY_SERVER.contains(&field.as_str()));
        }
        if let (Some(admitted), Some(fields)) = (admitted, object.as_object_mut()) {
            let metadata = fields.entry("metadata").or_insert(Value::Null);
            if metadata.is_null() {
                *metadata = json!({});
            }
            // A document may have any value here.
            if let Some(metadata) = metadata.as_object_mut() {
                if !admitted.namespaced {
                    metadata.remove("namespace");
                } else if metadata.get("namespace").is_none_or(|namespace| *namespace == "") {
                    metadata.insert("namespace".to_owned(), defaults.namespace.as_str().into());
                }
            }
        }
        let metadata = Metadata::of(&object);
        // A namespace that cannot be decoded makes the object no cluster-scoped one.
        let namespace = match admitted {
            Some(admitted) if admitted.namespaced => metadata.namespace().unwrap_or(&defaults.namespace),
            _ => metadata.namespace().unwrap_or_default(),
        };
        Self {
            review: ReviewRequest {
                uid: "offline".to_owned(),
                kind,
                operation: Operation::Create,
                sub_resource: String::new(),
                name: metadata.name().unwrap_or_default().to_owned(),
                namespace: namespace.to_owned(),
                user_info: defaults.user.clone(),
                object,
                old_object: Value::Null,
                dry_run: Some(true),
            },
            resource: admitted.map(|admitted| admitted.resource.to_owned()),
            recorded: false,
        }
    }

    /// The request of the AdmissionReview `review`.
    fn recorded(mut review: Value) -> Result<Self, InvalidReview> {
        #[derive(Deserialize)]
        struct ReviewResource {
            #[serde(default)]
            resource: Resource,
        }
        #[derive(Default, Deserialize)]
        struct Resource {
            #[serde(default)]
            resource: String,
        }
        let request = review["request"].take();
        if !request.is_object() {
            return Err(InvalidReview("request: Required value".to_owned()));
        }
        let review_resource =
            ReviewResource::deserialize(&request).map_err(|error| InvalidReview(error.to_string()))?;
        let mut review = ReviewRequest::deserialize(request).map_err(|error| InvalidReview(error.to_string()))?;
        drop_empty(&mut review.object);
        drop_empty(&mut review.old_object);
        let resource = Some(review_resource.resource.resource).filter(|resource| !resource.is_empty());
        let known = admitted(&review.kind).map(|admitted| admitted.resource.to_owned());
        Ok(Self {
            review,
            resource: resource.or(known),
            recorded: true,
        })
    }

    /// The group and version of the kind, as in `apiVersion`.
    pub fn api_version(&self) -> String {
        match self.review.kind.group.as_str() {
            "" => self.review.kind.version.clone(),
            group => format!("{group}/{}", self.review.kind.version),
        }
    }

    /// The kind with its group and version, as `apiVersion kind`.
    pub fn kind_name(&self) -> String {
        format!("{} {}", self.api_version(), self.review.kind.kind)
    }

    /// The operation as webhook rules spell it.
    pub fn operation_name(&self) -> &'static str {
        match self.review.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// The kind as an endpoint admits it, in any version.
fn admitted(kind: &ObjectKind) -> Option<&'static AdmittedKind> {
    let admitted = ENDPOINTS.iter().flat_map(|endpoint| endpoint.admitted);
    admitted
        .into_iter()
        .find(|admitted| admitted.group == kind.group && admitted.name == kind.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_a_cluster_is_evaluated_as_a_new_one() {
        let object = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": "a", "uid": "u",
            "resourceVersion": "1", "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {"b": "c"}, "annotations": {}, "finalizers": null}});
        let request = WriteRequest::of(object, &RequestDefaults::default()).unwrap();
        assert_eq!(
            request.review.object["metadata"],
            json!({"name": "a", "namespace": "default", "labels": {"b": "c"}})
        );
        assert_eq!(
            (request.review.namespace.as_str(), request.review.name.as_str()),
            ("default", "a")
        );
    }

    #[test]
    fn any_metadata_makes_a_request() {
        for metadata in [json!("text"), json!(7), json!([]), Value::Null] {
            let object = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": metadata});
            WriteRequest::create(object, &RequestDefaults::default());
        }
    }

    #[test]
    fn the_request_of_a_review_is_taken_unchanged() {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": "kelos.dev", "version": "v1alpha2", "kind": "Task"},
            "resource": {"group": "kelos.dev", "version": "v1alpha2", "resource": "tasks"}, "subResource": "status",
            "operation": "UPDATE", "name": "a", "namespace": "team", "userInfo": {"username": "ann"},
            "object": {"metadata": {"uid": "u", "labels": {}}}, "oldObject": {"metadata": {}}}});
        let request = WriteRequest::of(review, &RequestDefaults::default()).unwrap();
        assert_eq!(
            (request.operation_name(), request.review.sub_resource.as_str()),
            ("UPDATE", "status")
        );
        assert_eq!(
            (
                request.review.user_info.username.as_deref(),
                &request.review.object["metadata"]
            ),
            (Some("ann"), &json!({"uid": "u"}))
        );
        let empty = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
        let error = WriteRequest::of(empty, &RequestDefaults::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no AdmissionReview with a request: request: Required value"
        );
    }
}
