//! `TaskRecord` (kelos §2.5): the durable trace of one attempt.

use super::{TaskUsage, empty};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// One finished Task with known usage. Named by the Task's UID, without an owner.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kelos.dev",
    version = "v1alpha2",
    kind = "TaskRecord",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct TaskRecordSpec {
    /// The Task.
    pub task_ref: TaskRef,
    /// The agent's type.
    #[serde(default, skip_serializing_if = "empty")]
    pub r#type: String,
    /// The model.
    #[serde(default, skip_serializing_if = "empty")]
    pub model: String,
    /// `Succeeded` or `Failed`.
    pub phase: String,
    /// When the agent started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TaskUsage>,
    /// Retention in seconds.
    #[serde(
        default,
        rename = "ttlSecondsAfterCompletion",
        skip_serializing_if = "Option::is_none"
    )]
    pub ttl_seconds: Option<i32>,
}

/// The Task that a record is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskRef {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}
