//! When to stop creating Tasks for an item that keeps failing.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::{DURATION, Mode};
use crate::{Duration, crds::describe_values};

/// When an item that keeps failing gets no further Task.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicy {
    /// The mode of this section. Absent: the policy's `mode`.
    pub mode: Option<Mode>,
    /// How many Tasks may fail in a row for one item. 0: no limit. 1: one Task, never retried. N: at most N Tasks.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub max_retries_per_item: u32,
    /// Reset the failures of a tripped item when its title, text, labels or human comments change at its issue source. taskgate
    /// then reads the issue source of tripped items; see the condition SourceReadable.
    #[serde(default)]
    pub reset_on_change: bool,
    /// After this time an open item gets one probe Task; its failure opens the item again. Absent: the item stays open until it
    /// is reset.
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub reset_after: Option<Duration>,
    /// The earliest next attempt after a failure. Absent: when the TTL of the failed Task is over.
    pub backoff: Option<Backoff>,
    /// Failures of the cluster that do not count. Absent: all of them are ignored.
    #[schemars(length(max = 16))]
    pub ignore: Option<Vec<InfrastructureFailure>>,
    /// How many ignored failures there may be in a row before the item is stopped after all. 0: no limit.
    #[serde(default = "FailurePolicy::default_infrastructure_failures")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_infrastructure_failures: u32,
    /// Tera template for the item's identity, for sources that name each Task anew (cron, webhooks). Knows `task`,
    /// `spawner` and `namespace`. Items of different spawners stay apart. Absent: the item that the source names.
    #[schemars(length(min = 1, max = 1024))]
    pub item_key: Option<String>,
}

impl FailurePolicy {
    fn default_infrastructure_failures() -> u32 {
        10
    }

    /// Whether failures of this kind do not count.
    pub fn ignores(&self, failure: InfrastructureFailure) -> bool {
        self.ignore.as_ref().is_none_or(|ignored| ignored.contains(&failure))
    }
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self {
            mode: None,
            max_retries_per_item: 0,
            reset_on_change: false,
            reset_after: None,
            backoff: None,
            ignore: None,
            max_infrastructure_failures: Self::default_infrastructure_failures(),
            item_key: None,
        }
    }
}

/// How long to wait before the next attempt: `initial`, then times `factor` for each failure, never more than `max`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// The wait after the first failure.
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub initial: Duration,
    /// What each further failure multiplies the wait by.
    #[serde(default = "Backoff::default_factor")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: u32,
    /// The longest wait.
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub max: Duration,
}

impl Backoff {
    fn default_factor() -> u32 {
        2
    }
}

/// A failure of the cluster rather than of the agent.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[schemars(transform = describe_values)]
pub enum InfrastructureFailure {
    /// The pod was evicted from its node.
    Evicted,
    /// Kueue or the scheduler preempted the pod.
    Preempted,
    /// An image could not be pulled.
    ImagePull,
    /// The node of the pod is gone or unreachable.
    NodeLost,
    /// The Job's `activeDeadlineSeconds` passed while it was still queued.
    QueueDeadline,
}
