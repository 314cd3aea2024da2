//! Task (kelos §2.1, §2.2).

use super::{AgentConfigRef, Credentials, NameRef, PodOverrides, WorkerSpec, empty};
use crate::go;
use k8s_openapi::api::batch::v1::PodFailurePolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the agent shall do. Immutable after creation.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kelos.dev",
    version = "v1alpha2",
    kind = "Task",
    namespaced,
    status = "TaskStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct TaskSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_pool_ref: Option<NameRef>,
    #[serde(default, skip_serializing_if = "empty")]
    pub r#type: String,
    pub prompt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    #[serde(default, skip_serializing_if = "empty")]
    pub model: String,
    #[serde(default, skip_serializing_if = "empty")]
    pub effort: String,
    #[serde(default, skip_serializing_if = "empty")]
    pub image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_ref: Option<NameRef>,
    #[serde(default, skip_serializing_if = "empty")]
    pub agent_config_refs: Vec<AgentConfigRef>,
    #[serde(default, skip_serializing_if = "empty")]
    pub depends_on: Vec<String>,
    #[serde(default, skip_serializing_if = "empty")]
    pub branch: String,
    #[serde(default, skip_serializing_if = "empty")]
    pub upstream_repo: String,
    #[serde(default, rename = "ttlSecondsAfterFinished", skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<i32>,
    #[serde(default, deserialize_with = "go::embedded", skip_serializing_if = "Option::is_none")]
    pub pod_failure_policy: Option<PodFailurePolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
    /// Served by no Kelos of today: only under
    /// [`CrdCapability::Cancellation`](crate::crds::CrdCapability::Cancellation).
    #[serde(default, skip_serializing_if = "empty")]
    pub queue_name: String,
}

impl TaskSpec {
    /// The agent's type: `worker.type`, else the flat field.
    pub fn agent_type(&self) -> &str {
        match &self.worker {
            Some(worker) if !worker.r#type.is_empty() => &worker.r#type,
            _ => &self.r#type,
        }
    }

    /// The model in effect, possibly empty.
    pub fn agent_model(&self) -> &str {
        match &self.worker {
            Some(worker) if !worker.model.is_empty() => &worker.model,
            _ => &self.model,
        }
    }

    /// The image in effect, possibly empty.
    pub fn agent_image(&self) -> &str {
        match &self.worker {
            Some(worker) if !worker.image.is_empty() => &worker.image,
            _ => &self.image,
        }
    }

    /// The workspace in effect.
    pub fn workspace(&self) -> Option<&str> {
        let worker = self.worker.as_ref().and_then(|w| w.workspace_ref.as_ref());
        worker.or(self.workspace_ref.as_ref()).map(|r| r.name.as_str())
    }

    /// The pod overrides in effect.
    pub fn overrides(&self) -> Option<&PodOverrides> {
        let worker = self.worker.as_ref().and_then(|w| w.pod_overrides.as_ref());
        worker.or(self.pod_overrides.as_ref())
    }
}

/// What became of a Task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct TaskStatus {
    #[serde(skip_serializing_if = "empty")]
    pub phase: String,
    #[serde(skip_serializing_if = "empty")]
    pub job_name: String,
    #[serde(skip_serializing_if = "empty")]
    pub pod_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    #[serde(skip_serializing_if = "empty")]
    pub message: String,
    #[serde(skip_serializing_if = "empty")]
    pub outputs: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub results: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<TaskUsage>,
    #[serde(skip_serializing_if = "empty")]
    pub conditions: Vec<Condition>,
    /// Served by no Kelos of today: only under
    /// [`CrdCapability::Cancellation`](crate::crds::CrdCapability::Cancellation).
    #[serde(skip_serializing_if = "empty")]
    pub cancelled_by: String,
}

/// What the agent's run has cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskUsage {
    /// US dollars, as a quantity.
    #[serde(
        rename = "costUSD",
        deserialize_with = "go::quantity",
        skip_serializing_if = "Option::is_none"
    )]
    pub cost_usd: Option<String>,
    /// Tokens read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<i64>,
    /// Tokens written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<i64>,
}

impl Task {
    /// The status, or an empty one before the first write.
    pub fn current(&self) -> TaskStatus {
        self.status.clone().unwrap_or_default()
    }

    /// The phase; empty before the first write.
    pub fn phase(&self) -> &str {
        self.status.as_ref().map_or("", |s| s.phase.as_str())
    }
}
