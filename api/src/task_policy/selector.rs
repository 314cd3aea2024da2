//! Which Tasks a policy governs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Which Tasks a policy governs. All the parts that are given must match.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TaskSelector {
    /// Tasks of the TaskSpawners with these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub spawner_names: Vec<String>,
    /// Tasks of TaskSpawners with these labels. Never matches a Task without a spawner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawner_selector: Option<LabelSelector>,
    /// Tasks with these labels, as their creator set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_selector: Option<LabelSelector>,
    /// Tasks of these agent types, such as `claude-code`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub task_types: Vec<String>,
}

impl TaskSelector {
    /// Whether the selector leaves out nothing.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}
