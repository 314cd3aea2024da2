//! `AdmissionReview` v1 on the wire: decoding requests, encoding decisions.
//!
//! Own structs rather than a client library's: the object stays JSON, so that no field of it is dropped (C13), and every
//! readable review is answered under its own uid.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::authentication::v1::UserInfo};
use serde::{Deserialize, Serialize};
use serde_json::{Value, error::Category};
use taskgate_policy::{Decision, Operation, clip};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// The longest decoding error in an answer, in characters.
const MAX_ERROR: usize = 160;

/// The request of a review. `options` are not decoded: no decision needs them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewRequest {
    /// The ID of the review; the answer carries the same.
    pub uid: String,
    /// The kind of `object`, in the version that the webhook is registered for.
    pub kind: ObjectKind,
    /// The operation.
    pub operation: Operation,
    /// The subresource, such as `status`; empty for the object itself.
    #[serde(default)]
    pub sub_resource: String,
    /// The object's name; empty when it is to be generated.
    #[serde(default)]
    pub name: String,
    /// The object's namespace; empty for cluster-scoped objects.
    #[serde(default)]
    pub namespace: String,
    /// The user that sent the request.
    #[serde(default)]
    pub user_info: UserInfo,
    /// The object as it is to be stored; null on DELETE.
    #[serde(default)]
    pub object: Value,
    /// The object as it is stored; null on CREATE.
    #[serde(default)]
    pub old_object: Value,
    /// Whether the request is a dry run.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

impl ReviewRequest {
    /// The name of the user; empty for none.
    pub(super) fn username(&self) -> &str {
        self.user_info.username.as_deref().unwrap_or_default()
    }
}

/// The group, version and kind of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct ObjectKind {
    /// The API group; empty for the core group.
    #[serde(default)]
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind's name.
    pub kind: String,
}

/// The body is not a review that can be answered.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, not UTF-8, cut short, or nested too deeply.
    #[error("the body is not valid JSON, at line {line} column {column}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// JSON of another shape.
    #[error("the body is not an AdmissionReview: {0}")]
    Shape(String),
    /// Another kind or version.
    #[error("{api_version:?} {kind:?} is not {API_VERSION} {KIND}")]
    OtherKind {
        /// `apiVersion` of the body.
        api_version: String,
        /// `kind` of the body.
        kind: String,
    },
    /// The review has no request.
    #[error("the review carries no request")]
    NoRequest,
    /// The request has no uid.
    #[error("the request has an empty uid")]
    NoUid,
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            Category::Data => Self::Shape(clip(&error.to_string(), MAX_ERROR)),
            Category::Syntax | Category::Eof | Category::Io => Self::Json {
                line: error.line(),
                column: error.column(),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestEnvelope {
    api_version: String,
    kind: String,
    #[serde(default)]
    request: Option<ReviewRequest>,
}

/// Decodes a review strictly: exactly v1, with a request that has a uid.
pub(super) fn decode(body: &[u8]) -> Result<ReviewRequest, DecodeError> {
    let envelope: RequestEnvelope = serde_json::from_slice(body)?;
    if envelope.api_version != API_VERSION || envelope.kind != KIND {
        return Err(DecodeError::OtherKind {
            api_version: clip(&envelope.api_version, MAX_ERROR),
            kind: clip(&envelope.kind, MAX_ERROR),
        });
    }
    let request = envelope.request.ok_or(DecodeError::NoRequest)?;
    if request.uid.is_empty() {
        return Err(DecodeError::NoUid);
    }
    Ok(request)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseEnvelope<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: AdmissionResponse<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionResponse<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<FailureStatus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}

/// A `metav1.Status`, which has a field of its own name.
#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "the wire names it so")]
struct FailureStatus<'a> {
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    code: u16,
}

/// Encodes `decision` as the answer to the review `uid`.
pub(super) fn encode(uid: &str, decision: &Decision) -> Vec<u8> {
    let patch = (decision.allowed() && !decision.patch.0.is_empty()).then(|| {
        let operations = serde_json::to_vec(&decision.patch).expect("a JSON patch serialises");
        ByteString(operations)
    });
    let status = decision.denial.as_ref().map(|denial| FailureStatus {
        status: "Failure",
        message: &denial.message,
        reason: if denial.code == 422 { "Invalid" } else { "Forbidden" },
        code: denial.code,
    });
    let mut audit_annotations: BTreeMap<_, _> = decision
        .audit
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    if !decision.allowed() {
        // The uid in taskgate's log: the audit log has another ID.
        audit_annotations.insert("review", uid);
    }
    encode_response(AdmissionResponse {
        uid,
        allowed: decision.allowed(),
        status,
        patch_type: patch.is_some().then_some("JSONPatch"),
        patch,
        audit_annotations,
        warnings: &decision.warnings,
    })
}

/// Allows the review `uid` of a kind that the endpoint is not registered for, with a note in the audit log.
pub(super) fn encode_unexpected_kind(uid: &str) -> Vec<u8> {
    encode_response(AdmissionResponse {
        uid,
        allowed: true,
        status: None,
        patch: None,
        patch_type: None,
        audit_annotations: [("verdict", "unexpected-kind")].into(),
        warnings: &[],
    })
}

fn encode_response(response: AdmissionResponse<'_>) -> Vec<u8> {
    let envelope = ResponseEnvelope {
        api_version: API_VERSION,
        kind: KIND,
        response,
    };
    serde_json::to_vec(&envelope).expect("text, numbers and lists serialise")
}
