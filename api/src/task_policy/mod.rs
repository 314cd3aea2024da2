//! `TaskPolicy` and `ClusterTaskPolicy`: what taskgate does with which Tasks. The sections have the names and meanings of the public
//! Kelos proposals.

mod failure;
mod metadata;
mod retry;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

pub use self::{
    failure::{Backoff, FailurePolicy, InfrastructureFailure},
    metadata::{IllegalValue, MetadataPolicy, PropagationTarget, TemplateEngine},
    retry::{RetriedKind, RetryOverrides, RetryPolicy, RetrySource, SecretRef},
};

pub(crate) use self::retry::any_object;
use crate::crds::describe_values;

/// A Go duration made of hours, minutes and seconds.
const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(h|m|s))+$";

/// A DNS-1123 subdomain, the form that Kueue demands of a queue's name (kueue §2), or anything with a template in it. The
/// rest is checked by admission.
const QUEUE: &str = r"^\s*[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\s*$|\{[{%#]";

/// What taskgate does with the Tasks of one namespace.
#[skip_serializing_none]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "taskgate.dev",
    version = "v1alpha1",
    kind = "TaskPolicy",
    plural = "taskpolicies",
    shortname = "tp",
    category = "taskgate",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "What taskgate does with the Tasks of this namespace: stop items that keep failing, cancel what became pointless, queue Jobs through Kueue, label Tasks.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Queue", type_ = "string", json_path = ".spec.queueName"),
    printcolumn(
        name = "Retries",
        type_ = "integer",
        json_path = ".spec.failurePolicy.maxRetriesPerItem"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("!has(self.queuePriorityClass) || has(self.queueName)")
    .message("queuePriorityClass needs queueName: without a queue there is nothing to order")
    .field_path(".queuePriorityClass"))]
#[x_kube(validation = Rule::new("!has(self.queueMode) || has(self.queueName)")
    .message("queueMode needs queueName").field_path(".queueMode"))]
pub struct TaskPolicySpec {
    /// What the policy may do. A section may have a mode of its own.
    #[serde(default)]
    pub mode: Mode,
    /// Which Tasks the policy governs. Empty: every Task of its namespaces.
    #[serde(default, skip_serializing_if = "TaskSelector::is_empty")]
    pub selector: TaskSelector,
    /// Which policy wins where several govern a Task: for each section an enforced ClusterTaskPolicy, then the one with the
    /// highest number, then a TaskPolicy before a ClusterTaskPolicy, then the name.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// When to stop creating Tasks for an item that keeps failing. Absent: no limit.
    pub failure_policy: Option<FailurePolicy>,
    /// When to cancel a running Task. Absent: only users cancel.
    pub cancellation_policy: Option<CancellationPolicy>,
    /// The Kueue LocalQueue that admits the Tasks' Jobs: a name, or a template as those of `metadata`, in the
    /// language of `metadata.engine`. Jobs are created suspended and Kueue starts them. A Task that names a queue itself goes
    /// there. Absent: Jobs are not queued, unless their Task names a queue.
    #[schemars(length(min = 1, max = 1024), regex(pattern = QUEUE))]
    pub queue_name: Option<String>,
    /// The Kueue WorkloadPriorityClass of the Jobs: a name, or a template as in queueName. Absent: the Jobs get none.
    #[schemars(length(min = 1, max = 1024), regex(pattern = QUEUE))]
    pub queue_priority_class: Option<String>,
    /// The mode of `queueName`. Absent: the policy's `mode`.
    pub queue_mode: Option<Mode>,
    /// What becomes of a Job when no legal name comes of the Task or of the template.
    #[schemars(extend("default" = "Suspend"))]
    pub queue_on_error: Option<QueueOnError>,
    /// What becomes of a Job that Kueue deactivated: it ran too long, was put back too often, or a check rejected it.
    #[schemars(extend("default" = "Keep"))]
    pub queue_on_deactivation: Option<QueueOnDeactivation>,
    /// Labels and annotations for Tasks. Absent: none.
    pub metadata: Option<MetadataPolicy>,
    /// Bounded retry of Foreman Workloads and of Tasks without a spawner. Absent: only users retry them.
    pub retry: Option<RetryPolicy>,
}

/// What taskgate does with the Tasks of many namespaces.
#[skip_serializing_none]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "taskgate.dev",
    version = "v1alpha1",
    kind = "ClusterTaskPolicy",
    plural = "clustertaskpolicies",
    shortname = "ctp",
    category = "taskgate",
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "What taskgate does with the Tasks of every namespace that namespaceSelector matches.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Enforced", type_ = "boolean", json_path = ".spec.enforced"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Queue", type_ = "string", json_path = ".spec.queueName"),
    printcolumn(
        name = "Retries",
        type_ = "integer",
        json_path = ".spec.failurePolicy.maxRetriesPerItem"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct ClusterTaskPolicySpec {
    /// The namespaces of the policy, by their labels. Empty or absent: every namespace that taskgate may touch.
    pub namespace_selector: Option<LabelSelector>,
    /// Whether the sections of this policy take precedence over every policy that is not enforced, whatever the priorities. A
    /// TaskPolicy may then only be stricter: of two limits the smaller one applies, of two waits the longer one; it can neither
    /// weaken the mode nor set the same labels and annotations.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false))]
    pub enforced: bool,
    /// The fields of a TaskPolicy.
    #[serde(flatten)]
    pub policy: TaskPolicySpec,
}

/// Which Tasks a policy governs. All the parts that are given must match.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TaskSelector {
    /// Tasks of the TaskSpawners with these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub spawner_names: Vec<String>,
    /// Tasks of TaskSpawners with these labels. Never matches a Task without a spawner.
    pub spawner_selector: Option<LabelSelector>,
    /// Tasks with these labels, as their creator set them.
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

/// What a policy, or one of its sections, may do.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[schemars(transform = describe_values)]
pub enum Mode {
    /// Does nothing, as if the policy or the section did not exist.
    Off,
    /// Changes, denies and warns of nothing; counts and records in metrics and Events what `Enforce` would do.
    Observe,
    /// As `Observe`, and warns the creator of what `Enforce` would do.
    Warn,
    /// Acts: denies, changes, queues, cancels and retries.
    #[default]
    Enforce,
}

/// The status of a policy.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The generation that the conditions are about.
    pub observed_generation: Option<i64>,
    /// `Accepted`: whether the policy is in force, and if not, which field is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// When a running Task is cancelled.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CancellationPolicy {
    /// The mode of this section. Absent: the policy's `mode`.
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
#[schemars(transform = describe_values)]
pub enum Reaction {
    /// Cancels the Task: its agent is stopped.
    Cancel,
    /// The Task runs on.
    #[default]
    Ignore,
}

/// What becomes of a Job for which no legal queue name was found.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(transform = describe_values)]
pub enum QueueOnError {
    /// The Job stays suspended until a user acts: no Job runs outside of the quota.
    #[default]
    Suspend,
    /// The Job runs, outside of any quota.
    Ignore,
}

/// What becomes of a Job that Kueue deactivated.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(transform = describe_values)]
pub enum QueueOnDeactivation {
    /// The Job stays, and its Task with it, until a user activates it again. No failure is counted.
    #[default]
    Keep,
    /// The Job fails, and so does its Task: the failure counts.
    Fail,
}
