//! Bounded retry of objects that no spawner recreates.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_with::skip_serializing_none;
use strum::{AsRefStr, Display, IntoStaticStr};

use super::{Backoff, Mode};
use crate::{Duration, crds::describe_values, foreman};

/// Bounded retry of Foreman Workloads and of Tasks without a spawner.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// The mode of this section. Absent: the policy's `mode`.
    pub mode: Option<Mode>,
    /// What is retried. Empty or absent: Foreman Workloads, and Tasks without a spawner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub kinds: Vec<RetriedKind>,
    /// How many runs there may be altogether: 3 means two retries, 1 none. The last one that failed stays as it is.
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: u32,
    /// How many runs in a row the cluster may fail before there is no further retry. They keep the attempt's number. 0: such
    /// failures are never retried.
    #[serde(default = "RetryPolicy::default_infrastructure_failures")]
    #[schemars(range(min = 0, max = 100))]
    pub max_infrastructure_failures: u32,
    /// Whether the next run gets the reason why the last one failed.
    #[serde(default)]
    pub feedback: bool,
    /// How long a failed run is left before it is retried, with some jitter. Absent: 5s, then twice as long each time, at
    /// most 5m.
    pub backoff: Option<Backoff>,
    /// How many objects this policy may have between deletion and recreation at the same time.
    #[serde(default = "RetryPolicy::default_in_flight")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight: u32,
    /// How many objects of one namespace may be between deletion and recreation at the same time.
    #[serde(default = "RetryPolicy::default_in_flight_per_namespace")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight_per_namespace: u32,
    /// Whether objects of the dispatch bridge (label created-by: dispatch-bridge…) are retried too. The successor loses that
    /// label, so that the bridge ignores it.
    #[serde(default)]
    pub take_over: bool,
    /// The prefix of the annotations attempt, issue-id and agent-name.
    #[serde(default = "RetryPolicy::default_prefix")]
    #[schemars(length(max = 200), regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?$"))]
    pub annotation_prefix: String,
    /// Reads the issue source when a retry is due: a run whose issues are all closed is not retried. Absent: the source is not
    /// read. Without an answer of the source the run is retried.
    pub source: Option<RetrySource>,
    /// Fields that every successor gets. Absent: it gets those of its predecessor.
    pub overrides: Option<RetryOverrides>,
}

impl RetryPolicy {
    fn default_infrastructure_failures() -> u32 {
        3
    }

    fn default_in_flight() -> u32 {
        10
    }

    fn default_in_flight_per_namespace() -> u32 {
        5
    }

    fn default_prefix() -> String {
        foreman::ANNOTATION_PREFIX.to_owned()
    }

    /// Whether objects of `kind` are retried.
    pub fn covers(&self, kind: RetriedKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// The wait between two runs.
    pub fn backoff(&self) -> Backoff {
        self.backoff.clone().unwrap_or(Backoff {
            initial: Duration::from(std::time::Duration::from_secs(5)),
            factor: 2,
            max: Duration::from(std::time::Duration::from_mins(5)),
        })
    }
}

impl Default for RetryPolicy {
    /// The policy that ends a retry whose own policy was deleted meanwhile.
    fn default() -> Self {
        Self {
            mode: None,
            kinds: Vec::new(),
            max_attempts: 1,
            max_infrastructure_failures: Self::default_infrastructure_failures(),
            feedback: false,
            backoff: None,
            max_in_flight: Self::default_in_flight(),
            max_in_flight_per_namespace: Self::default_in_flight_per_namespace(),
            take_over: false,
            annotation_prefix: Self::default_prefix(),
            source: None,
            overrides: None,
        }
    }
}

/// How the issue source of a failed run is read.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RetrySource {
    /// The Secret, in the namespace of the Workload, with the key GITHUB_TOKEN to read its repository. Absent: without a token. The
    /// source of a Task is always read with the token of its Workspace.
    pub secret_ref: Option<SecretRef>,
}

/// A Secret, by name.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A kind of object that is retried.
#[derive(
    JsonSchema,
    Serialize,
    Deserialize,
    AsRefStr,
    Display,
    IntoStaticStr,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
)]
#[schemars(transform = describe_values)]
pub enum RetriedKind {
    /// Foreman's Workload.
    Workload,
    /// Kelos' Task, if no spawner created it.
    Task,
}

/// Fields that every successor gets, in place of its predecessor's.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RetryOverrides {
    /// Fields of a Workload's spec, such as coderAgentRef or gateProfile, as a JSON merge patch: what is named here replaces
    /// what was there, null removes it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub workload: Map<String, Value>,
    /// Fields of a Task's spec, such as model, as a JSON merge patch.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub task: Map<String, Value>,
    /// Labels of the successor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the successor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The schema of an object with any fields.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
