//! The retry status of a `WorkItem`: the latest run, how it failed, and the state of its replacement by the next one. It outlives
//! those objects, and is written before anything is done to them.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_with::skip_serializing_none;

use crate::{
    crds::describe_values,
    task_policy::{RetriedKind, any_object},
};

/// The type of the condition of a `WorkItem` about its failed run.
pub const CONDITION: &str = "Retry";

/// How the runs of one item are counted and retried.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RetryStatus {
    /// Which run the latest one is; the first is 1. A run that the cluster failed and its repetition have the same number.
    /// 0: after a success or a reset.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempt: u32,
    /// The object of that run.
    pub run: Option<RunRef>,
    /// How that run failed, once it did.
    pub failure: Option<RunFailure>,
    /// The retry that is under way.
    pub transition: Option<Transition>,
    /// UIDs of failed objects of the item before its latest run: they are not retried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 128)))]
    pub aside: Vec<String>,
}

/// An object that is retried.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct RunRef {
    /// Its kind.
    pub kind: RetriedKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its UID.
    #[schemars(length(min = 1, max = 128))]
    pub uid: String,
}

impl fmt::Display for RunRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// How a run failed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunFailure {
    /// Whose fault it was.
    pub class: FailureClass,
    /// Why, in one CamelCase word.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// When it was noticed.
    pub time: Time,
    /// When the next attempt is due. Absent where none is, or where it is due within two seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
}

/// Whose fault a failure was, and so what may follow from it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[schemars(transform = describe_values)]
pub enum FailureClass {
    /// The agent's: its work was not good enough. Counts towards `maxAttempts`.
    Work,
    /// The cluster's. The next run keeps the number, and `maxInfrastructureFailures` limits it.
    Infrastructure,
    /// Another run would end in the same way: there is no retry until a user acts.
    Human,
    /// None: the issues of the run are closed, so there is no retry.
    Obsolete,
}

/// A retry that is under way. It is recorded before its first step, and until its last one is done.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// The object that is replaced.
    pub old: RunRef,
    /// Its version when it was last read: any other version is read again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Its number.
    pub from: u32,
    /// The number of its successor.
    pub to: u32,
    /// Its current step.
    pub step: RetryStage,
    /// Since when it is in this step.
    pub since: Time,
    /// The policy that retries it; absent when a user asked for it.
    #[schemars(length(max = 512))]
    pub policy: Option<String>,
    /// The user who asked for it.
    #[schemars(length(max = 256))]
    pub requested_by: Option<String>,
    /// Whether the successor gets the feedback of its predecessor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_feedback: bool,
    /// What blocks it.
    pub blocked: Option<Blocked>,
    /// The predecessor, as far as its successor is built from it. Only while it is gone.
    #[serde(default)]
    #[schemars(schema_with = "any_object")]
    pub predecessor: Option<Value>,
    /// Why the predecessor failed, for its successor to read.
    #[schemars(length(max = 4096))]
    pub feedback: Option<String>,
    /// The names of the predecessor's children, whose Jobs must have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 253)))]
    pub children: Vec<String>,
}

/// The step of a retry.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[schemars(transform = describe_values)]
pub enum RetryStage {
    /// The retry is decided; the predecessor is untouched.
    Planned,
    /// The successor would be admitted; the predecessor is about to be deleted.
    Deleting,
    /// taskgate deleted the predecessor; once nothing is left of it, the successor is created.
    Deleted,
}

/// What blocks a retry.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Blocked {
    /// Why, in one CamelCase word.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// What it is.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When it was seen last.
    pub time: Time,
}

/// What a user asks for with the annotation [`keys::RETRY`](crate::keys::RETRY) of a `WorkItem`, as JSON.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryOrder {
    /// The kind of the object that is to be run again.
    pub kind: RetriedKind,
    /// Its name.
    pub name: String,
    /// Its UID: no other object of that name is meant.
    pub uid: String,
    /// Count as if the failed run had been this one: 1 to 1000.
    pub from_attempt: Option<u32>,
    /// Count from the beginning again: the next run is the first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// Give the next run the reason why the last one failed, whatever the policy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_feedback: bool,
}

impl RetryOrder {
    /// The longest order, in bytes.
    const MAX_LENGTH: usize = 1024;

    /// Reads the annotation. Errors with what is wrong with it, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > Self::MAX_LENGTH {
            return Err(format!("it is longer than {} bytes", Self::MAX_LENGTH));
        }
        let order: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if order.name.is_empty() || order.uid.is_empty() {
            return Err("name and uid say which object is meant: neither may be empty".to_owned());
        }
        if order.from_attempt.is_some_and(|from| !(1..=1000).contains(&from)) {
            return Err("fromAttempt is 1 to 1000".to_owned());
        }
        Ok(order)
    }

    /// The object that is meant.
    pub fn run(&self) -> RunRef {
        RunRef {
            kind: self.kind,
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }
}
