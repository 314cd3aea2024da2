//! The agent part that Tasks, task templates and worker pools share (kelos §2.1).

use super::empty;
use crate::go;
use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvVar, LocalObjectReference, PodSecurityContext, ResourceRequirements, SecurityContext,
    Toleration, Volume, VolumeMount,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A reference by name in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NameRef {
    /// The object's name.
    pub name: String,
}

/// A reference to an `AgentConfig`.
pub type AgentConfigRef = NameRef;

/// How the agent authenticates with its provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// `api-key`, `oauth` or `none`.
    pub r#type: String,
    /// The Secret; not with `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
}

/// The newer shape of the agent fields; each wins over the Task's flat field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct WorkerSpec {
    #[serde(skip_serializing_if = "empty")]
    pub r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    #[serde(skip_serializing_if = "empty")]
    pub model: String,
    #[serde(skip_serializing_if = "empty")]
    pub effort: String,
    #[serde(skip_serializing_if = "empty")]
    pub image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_ref: Option<NameRef>,
    #[serde(skip_serializing_if = "empty")]
    pub agent_config_refs: Vec<AgentConfigRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
}

/// What a user may change in the agent's pod. There is no field for annotations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct PodOverrides {
    #[serde(skip_serializing_if = "empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "go::embedded", skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    #[serde(deserialize_with = "go::embedded", skip_serializing_if = "empty")]
    pub env: Vec<EnvVar>,
    #[serde(skip_serializing_if = "empty")]
    pub node_selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "go::embedded", skip_serializing_if = "empty")]
    pub tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "go::embedded", skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    #[serde(deserialize_with = "go::embedded", skip_serializing_if = "empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    #[serde(skip_serializing_if = "empty")]
    pub service_account_name: String,
    #[serde(deserialize_with = "go::embedded", skip_serializing_if = "empty")]
    pub volumes: Vec<Volume>,
    #[serde(deserialize_with = "go::embedded", skip_serializing_if = "empty")]
    pub volume_mounts: Vec<VolumeMount>,
    #[serde(deserialize_with = "go::embedded", skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurityContext>,
    #[serde(deserialize_with = "go::embedded", skip_serializing_if = "Option::is_none")]
    pub container_security_context: Option<SecurityContext>,
    #[serde(deserialize_with = "go::containers", skip_serializing_if = "empty")]
    pub extra_containers: Vec<Container>,
    #[serde(deserialize_with = "go::containers", skip_serializing_if = "empty")]
    pub extra_init_containers: Vec<Container>,
}
