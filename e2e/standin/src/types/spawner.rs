//! `TaskSpawner` (kelos §2.3, §2.4).

use super::{AgentConfigRef, Credentials, NameRef, PodOverrides, When, WorkerSpec, empty};
use crate::go;
use k8s_openapi::api::batch::v1::PodFailurePolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Items in, Tasks out.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kelos.dev",
    version = "v1alpha2",
    kind = "TaskSpawner",
    namespaced,
    status = "TaskSpawnerStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct TaskSpawnerSpec {
    pub when: When,
    pub task_template: TaskTemplate,
    #[serde(default, skip_serializing_if = "empty")]
    pub credentials: Vec<NamedCredentials>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_tasks: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

impl TaskSpawnerSpec {
    /// Whether a user has suspended it.
    pub fn is_suspended(&self) -> bool {
        self.suspend == Some(true)
    }
}

/// An entry of the credentials pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct NamedCredentials {
    pub name: String,
    pub r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
}

/// What a Task is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct TaskTemplate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    #[serde(skip_serializing_if = "empty")]
    pub name_template: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_pool_ref: Option<NameRef>,
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
    #[serde(skip_serializing_if = "empty")]
    pub depends_on: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub branch: String,
    #[serde(skip_serializing_if = "empty")]
    pub prompt_template: String,
    #[serde(skip_serializing_if = "empty")]
    pub upstream_repo: String,
    #[serde(rename = "ttlSecondsAfterFinished", skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<i32>,
    #[serde(deserialize_with = "go::embedded", skip_serializing_if = "Option::is_none")]
    pub pod_failure_policy: Option<PodFailurePolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
}

impl TaskTemplate {
    /// The workspace in effect.
    pub fn workspace(&self) -> Option<&str> {
        let worker = self.worker.as_ref().and_then(|w| w.workspace_ref.as_ref());
        self.workspace_ref.as_ref().or(worker).map(|r| r.name.as_str())
    }
}

/// Templates for the Task's own labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct TemplateMetadata {
    #[serde(skip_serializing_if = "empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What became of the last cycle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct TaskSpawnerStatus {
    #[serde(skip_serializing_if = "empty")]
    pub phase: String,
    #[serde(skip_serializing_if = "empty")]
    pub deployment_name: String,
    #[serde(skip_serializing_if = "empty")]
    pub cron_job_name: String,
    #[serde(skip_serializing_if = "empty")]
    pub total_discovered: i64,
    #[serde(skip_serializing_if = "empty")]
    pub total_tasks_created: i64,
    #[serde(skip_serializing_if = "empty")]
    pub active_tasks: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_discovery_time: Option<Time>,
    #[serde(skip_serializing_if = "empty")]
    pub message: String,
    #[serde(skip_serializing_if = "empty")]
    pub conditions: Vec<Condition>,
}

impl TaskSpawner {
    /// The status, or an empty one before the first write.
    pub fn current(&self) -> TaskSpawnerStatus {
        self.status.clone().unwrap_or_default()
    }

    /// The phase; empty before the first write.
    pub fn phase(&self) -> &str {
        self.status.as_ref().map_or("", |s| s.phase.as_str())
    }
}
