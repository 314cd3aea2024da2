//! `WorkerPool` (kelos §7).

use super::{WorkerSpec, empty};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// A set of long-lived runner pods.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kelos.dev",
    version = "v1alpha2",
    kind = "WorkerPool",
    namespaced,
    status = "WorkerPoolStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct WorkerPoolSpec {
    /// The agent that the runners host.
    pub worker: WorkerSpec,
    /// Number of runners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
}

/// What became of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerPoolStatus {
    /// `Pending`, `Ready` or `Failed`.
    #[serde(skip_serializing_if = "empty")]
    pub phase: String,
    /// Runners that are ready.
    #[serde(skip_serializing_if = "empty")]
    pub ready_replicas: i32,
}
