//! `TaskPolicy` and `ClusterTaskPolicy`: what taskgate is to do with which Tasks. The sections carry the names and the
//! meanings of the public proposals ("seeds" 000 to 004), so that a reader of those knows them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A DNS-1123 subdomain: the form of a `LocalQueue`'s and a priority class' name (Kueue refuses anything else, kueue §2).
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A Go duration made of hours, minutes and seconds.
const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(h|m|s))+$";

/// What taskgate does with the Tasks of one namespace.
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
    doc = "What taskgate does with the Tasks of this namespace: stop items that keep failing, queue Jobs through Kueue, label Tasks.",
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
#[x_kube(validation = Rule::new("!has(self.cancellationPolicy)")
    .message("cancellationPolicy is not active in this release: remove it").field_path(".cancellationPolicy"))]
#[x_kube(validation = Rule::new("!has(self.retry)")
    .message("retry is not active in this release: remove it").field_path(".retry"))]
pub struct TaskPolicySpec {
    /// What the policy may do: `Off` nothing and as if it were not there, `Observe` only count and record what it would do,
    /// `Warn` tell the creator but change nothing, `Enforce` act. A section may say otherwise for itself.
    #[serde(default)]
    pub mode: Mode,
    /// Which Tasks the policy governs. Empty: every Task in reach.
    #[serde(default, skip_serializing_if = "TaskSelector::is_empty")]
    pub selector: TaskSelector,
    /// Which policy wins where several govern a Task: for each section the one with the highest number, then a TaskPolicy
    /// before a ClusterTaskPolicy, then the name.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// When to stop making Tasks for an item that keeps failing (seed 000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailurePolicy>,
    /// When to cancel a running Task (seed 001).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancellation_policy: Option<CancellationPolicy>,
    /// The Kueue LocalQueue that admits the Tasks' Jobs (seed 002). Jobs are created suspended and Kueue starts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub queue_name: Option<String>,
    /// The Kueue WorkloadPriorityClass of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub queue_priority_class: Option<String>,
    /// The mode of `queueName`, where it differs from the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_mode: Option<Mode>,
    /// Labels and annotations for Tasks (seed 004).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataPolicy>,
    /// Bounded retry of objects that no spawner recreates (seed 003).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
}

/// What taskgate does with the Tasks of many namespaces.
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
    /// Which namespaces the policy reaches, by their labels. Empty or absent: every namespace that taskgate may touch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Everything that a TaskPolicy can say.
    #[serde(flatten)]
    pub policy: TaskPolicySpec,
}

/// How far a policy, or one of its sections, may go.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Do nothing.
    Off,
    /// Change nothing, say nothing to the creator; count and record what would have been done.
    Observe,
    /// Change nothing; tell the creator what would have been done.
    Warn,
    /// Act.
    #[default]
    Enforce,
}

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

/// When an item that keeps failing is left alone (seed 000).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.resetOnChange) || !self.resetOnChange")
    .message("resetOnChange is not active in this release: remove it").field_path(".resetOnChange"))]
pub struct FailurePolicy {
    /// The mode of this section, where it differs from the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How many Tasks may fail in a row for one item. 0: no limit. 1: one Task, never retried. N: at most N Tasks.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub max_retries_per_item: u32,
    /// Forget the failures when the item's content changes.
    #[serde(default)]
    pub reset_on_change: bool,
    /// After this time an open item gets one probe Task; its failure opens the item again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub reset_after: Option<Duration>,
    /// The earliest next attempt after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Failures of the cluster that do not count. Absent: all of them are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub ignore: Option<Vec<InfrastructureFailure>>,
    /// How many ignored failures there may be in a row before the item is stopped after all. 0: no limit.
    #[serde(default = "FailurePolicy::default_infrastructure_failures")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_infrastructure_failures: u32,
    /// Tera template for the item's identity, for sources that name each Task anew (cron, webhooks). Knows `task`,
    /// `spawner` and `namespace`. Items of different spawners stay apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
pub enum InfrastructureFailure {
    /// The pod was evicted.
    Evicted,
    /// Kueue or the scheduler preempted the pod.
    Preempted,
    /// An image could not be pulled.
    ImagePull,
    /// The node went away.
    NodeLost,
    /// The deadline passed while the Job was still queued.
    QueueDeadline,
}

/// When a running Task is cancelled (seed 001).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CancellationPolicy {
    /// The mode of this section, where it differs from the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What to do when the item is closed or no longer matches the spawner's filters.
    #[serde(default)]
    pub on_source_removed: Reaction,
    /// What to do when the item is triggered again while a Task for it is active.
    #[serde(default)]
    pub on_retrigger: Reaction,
    /// How long the agent is warned before it is stopped.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub grace_period_seconds: u32,
}

/// What follows from a trigger.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reaction {
    /// Cancel the Task.
    Cancel,
    /// Leave the Task alone.
    #[default]
    Ignore,
}

/// Labels and annotations for Tasks (seed 004).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.engine)")
    .message("engine is not active in this release: values are literal; remove it").field_path(".engine"))]
#[x_kube(validation = Rule::new("!has(self.propagate)")
    .message("propagate is not active in this release: remove it").field_path(".propagate"))]
pub struct MetadataPolicy {
    /// The mode of this section, where it differs from the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The language of the templates in `labels` and `annotations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<TemplateEngine>,
    /// Labels to put on Tasks that do not have them yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded_map::<4096>")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to put on Tasks that do not have them yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded_map::<16384>")]
    pub annotations: BTreeMap<String, String>,
    /// Which objects below the Task get the same labels and annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2))]
    pub propagate: Option<Vec<PropagationTarget>>,
}

/// At most 64 entries with values of at most `MAX` characters: bounds that the API server needs to estimate CEL cost.
fn bounded_map<const MAX: usize>(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": MAX},
    })
}

/// A template language.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TemplateEngine {
    /// `{{ item.url }}`
    #[default]
    Tera,
    /// `{{.URL}}`, as seed 004 writes it.
    GoTemplate,
}

/// An object that a Task leads to.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropagationTarget {
    /// The Task's Job.
    Job,
    /// The Job's pods.
    Pod,
}

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

/// What taskgate found when it read the policy.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`: whether the policy is in force, and if not, which field is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
