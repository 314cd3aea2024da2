//! Bounded retry of objects that no spawner recreates (seed 003).

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::Mode;

/// Bounded retry of objects that no spawner recreates (seed 003).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// The mode of this section, where it differs from the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How many runs there may be altogether.
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: u32,
    /// Whether the next run is told why the last one failed.
    #[serde(default)]
    pub feedback: bool,
}
