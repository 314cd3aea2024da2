//! `WorkItem`: the durable record of one unit of work across all its Tasks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::{crds::describe_values, retry_status::RetryStatus};

/// The identity of a unit of work. It is written once, by taskgate or by a user, and never changes.
#[skip_serializing_none]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "taskgate.dev",
    version = "v1alpha1",
    kind = "WorkItem",
    plural = "workitems",
    shortname = "wi",
    category = "taskgate",
    namespaced,
    status = "WorkItemStatus",
    derive = "PartialEq",
    doc = "The record of one unit of work (an issue, a pull request, a ticket) across all its Tasks. Deleting it resets its failures.",
    printcolumn(name = "Spawner", type_ = "string", json_path = ".spec.spawner"),
    printcolumn(name = "Item", type_ = "string", json_path = ".spec.item"),
    printcolumn(name = "Breaker", type_ = "string", json_path = ".status.breaker"),
    printcolumn(name = "Failures", type_ = "integer", json_path = ".status.consecutiveFailures"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.openedAt"),
    printcolumn(name = "Cost", type_ = "string", json_path = ".status.totalCostUSD"),
    printcolumn(
        name = "Next Retry",
        type_ = "string",
        json_path = ".status.retry.failure.nextAttemptTime"
    ),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.reason"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        priority = 1
    )
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a WorkItem's spec is immutable: delete the WorkItem to reset the item"))]
pub struct WorkItemSpec {
    /// The full identity of the item within its namespace, such as `fixer/42`. The object's name is derived from it.
    #[schemars(length(min = 1, max = 1024))]
    pub key: String,
    /// The item as its source names it, such as `42` or `ABC-12`. Shown in conditions and messages.
    #[schemars(length(min = 1, max = 253))]
    pub item: String,
    /// The TaskSpawner that creates Tasks for the item. Absent when the identity was stated on the Task itself.
    #[schemars(length(min = 1, max = 253))]
    pub spawner: Option<String>,
}

/// The state of the item.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkItemStatus {
    /// The state of the item's circuit breaker. Absent: nothing is recorded yet.
    pub breaker: Option<Breaker>,
    /// How many Tasks of this item failed in a row. A success sets it to 0; infrastructure failures do not count.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub consecutive_failures: u32,
    /// How many Tasks in a row were failed by the cluster rather than by the agent. They have a limit of their own.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub infrastructure_failures: u32,
    /// When the most recent failure was recorded.
    pub last_failure_time: Option<Time>,
    /// When the breaker opened.
    pub opened_at: Option<Time>,
    /// Why the breaker is in its state, in one word.
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Opaque hash of the item's content as first seen after it opened: another content resets it (resetOnChange).
    #[schemars(length(max = 128))]
    pub content_hash: Option<String>,
    /// The latest reset: when, why, and by whom or by which Task's deletion.
    pub last_reset: Option<Reset>,
    /// How its runs are counted and retried, where a policy retries them.
    pub retry: Option<RetryStatus>,
    /// The latest attempts, oldest first; older ones are dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub attempts: Vec<Attempt>,
    /// What all attempts of this item cost, in US dollars, as a decimal number.
    #[serde(rename = "totalCostUSD")]
    #[schemars(length(max = 32))]
    pub total_cost_usd: Option<String>,
    /// Conditions in the usual Kubernetes form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands over a reference.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A reset of the failures.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Reset {
    /// When.
    pub time: Time,
    /// Why, in one word, such as `TombstoneDeleted`.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// The UID of the Task whose deletion was read as a reset.
    #[schemars(length(max = 128))]
    pub task_uid: Option<String>,
    /// The user who asked for it, where one did.
    #[schemars(length(max = 512))]
    pub by: Option<String>,
    /// The reason that the user gave.
    #[schemars(length(max = 512))]
    pub message: Option<String>,
}

/// The state of an item's circuit breaker.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = describe_values)]
pub enum Breaker {
    /// The item gets Tasks.
    Closed,
    /// The item gets no further Task until it is reset.
    Open,
    /// The item gets one Task, the probe: its success closes the breaker, its failure opens it again.
    HalfOpen,
}

/// One Task of the item, and how it ended.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The Task's UID: an attempt is recorded once per UID.
    #[schemars(length(max = 128))]
    pub uid: String,
    /// The Task's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it opened the breaker: its Task is then kept as the tombstone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opened: bool,
    /// Why, as a CamelCase word such as `BackoffLimitExceeded`.
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Who cancelled it, such as `user:ann` or `spawner:fixer`.
    #[schemars(length(max = 256))]
    pub cancelled_by: Option<String>,
    /// When the agent started.
    pub start_time: Option<Time>,
    /// When the Task ended.
    pub completion_time: Option<Time>,
    /// What the attempt cost, in US dollars, as a decimal number.
    #[serde(rename = "costUSD")]
    #[schemars(length(max = 32))]
    pub cost_usd: Option<String>,
    /// Tokens that the agent read.
    pub input_tokens: Option<i64>,
    /// Tokens that the agent wrote.
    pub output_tokens: Option<i64>,
}

/// How an attempt ended.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = describe_values)]
pub enum Outcome {
    /// The agent did its work. Sets the count of failures to 0.
    Succeeded,
    /// The agent failed; counts towards the limit.
    Failed,
    /// The cluster failed the agent; recorded, but does not count.
    Infrastructure,
    /// The Task was cancelled; neither a failure nor a success.
    Cancelled,
    /// The Task was deleted before it ended.
    Deleted,
    /// taskgate stopped the Task: it was created although its item was open. Does not count.
    Stopped,
}
