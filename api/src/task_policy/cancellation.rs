//! When a running Task is cancelled.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mode;

/// When a running Task is cancelled.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CancellationPolicy {
    /// The mode of this section, where it differs from the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What to do when the item is closed or no longer matches the spawner's filters.
    #[serde(default)]
    pub on_source_removed: Reaction,
    /// What to do when the item is triggered again while a Task for it is active: by a newer Task for it, a newer trigger
    /// comment, a new commit on a pull request; and when the next run of a cron spawner is due.
    #[serde(default)]
    pub on_retrigger: Reaction,
    /// How long the agent is warned before it is stopped, in seconds.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub grace_period_seconds: u32,
}

impl CancellationPolicy {
    /// Whether anything is ever cancelled.
    pub fn reacts(&self) -> bool {
        self.on_source_removed == Reaction::Cancel || self.on_retrigger == Reaction::Cancel
    }
}

/// What follows from a trigger.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reaction {
    /// Cancel the Task.
    Cancel,
    /// Do not cancel the Task.
    #[default]
    Ignore,
}
