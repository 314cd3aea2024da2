//! The history of a case: how earlier Tasks of an item ended, recorded into the item's status by the controller's own code.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use taskgate_api::{
    WorkItemStatus,
    kelos::Task,
    metadata::Metadata,
    work_item::{Attempt, Outcome},
};
use taskgate_policy::{PolicyScope, record};

use crate::{ClusterState, WriteRequest, documents::ReadValue};

/// An earlier attempt.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "PastAttemptFields")]
pub(super) struct PastAttempt {
    outcome: Outcome,
    time: Timestamp,
    reason: Option<String>,
    cost: Option<String>,
}

/// The fields of an earlier attempt in the file: exactly one of the times is set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PastAttemptFields {
    /// The agent failed.
    #[serde(default)]
    failed: Option<AttemptTime>,
    /// The infrastructure failed.
    #[serde(default)]
    infrastructure: Option<AttemptTime>,
    /// The agent succeeded.
    #[serde(default)]
    succeeded: Option<AttemptTime>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    cost: Option<String>,
}

/// When an attempt ended.
#[derive(Deserialize)]
#[serde(try_from = "ReadValue")]
struct AttemptTime(Timestamp);

impl TryFrom<ReadValue> for AttemptTime {
    type Error = String;

    fn try_from(read: ReadValue) -> Result<Self, String> {
        super::time(&read.value).map(Self)
    }
}

impl TryFrom<PastAttemptFields> for PastAttempt {
    type Error = &'static str;

    fn try_from(fields: PastAttemptFields) -> Result<Self, Self::Error> {
        let (outcome, time) = match (fields.failed, fields.infrastructure, fields.succeeded) {
            (Some(time), None, None) => (Outcome::Failed, time),
            (None, Some(time), None) => (Outcome::Infrastructure, time),
            (None, None, Some(time)) => (Outcome::Succeeded, time),
            _ => return Err("history: exactly one of failed, infrastructure and succeeded gives the time"),
        };
        Ok(Self {
            outcome,
            time: time.0,
            reason: fields.reason,
            cost: fields.cost,
        })
    }
}

impl PastAttempt {
    fn attempt(&self, number: usize) -> Attempt {
        let default = match self.outcome {
            Outcome::Infrastructure => "Evicted",
            Outcome::Succeeded => "Succeeded",
            _ => "Failed",
        };
        Attempt {
            uid: format!("history-{number}"),
            name: format!("history-{number}"),
            outcome: self.outcome,
            opened: false,
            reason: Some(self.reason.as_deref().unwrap_or(default).to_owned()),
            cancelled_by: None,
            start_time: None,
            completion_time: Some(Time(self.time)),
            cost_usd: self.cost.clone(),
            input_tokens: None,
            output_tokens: None,
        }
    }
}

/// Records the attempts until `now` in the status of the item that `request` is about: of the Task, or of the Job's Task. Without a
/// failure policy nothing is recorded.
pub(super) fn record_history(
    cluster: &mut ClusterState,
    history: &[PastAttempt],
    request: &WriteRequest,
    now: Timestamp,
) {
    if history.is_empty() {
        return;
    }
    let namespace = request.review.namespace.as_str();
    let object = match request.review.kind.kind.as_str() {
        "Job" => Metadata::of(&request.review.object)
            .controller()
            .and_then(|owner| cluster.task(namespace, owner.name)),
        _ => Some(&request.review.object),
    };
    let Some(object) = object.cloned() else { return };
    let labels = cluster.namespace_labels(namespace);
    let spawner = Task::of(&object).spawner();
    let spawner = spawner.and_then(|name| cluster.spawner_info(namespace, name));
    let Some(rule) = PolicyScope::new(cluster.policies(), namespace, &labels, spawner).failure(&object) else {
        return;
    };
    let Some(item) = rule.item else { return };
    let mut attempts: Vec<_> = history.iter().filter(|attempt| attempt.time <= now).collect();
    attempts.sort_by_key(|attempt| attempt.time);
    let mut status = WorkItemStatus::default();
    for (number, past) in attempts.into_iter().enumerate() {
        let next = record(&status, past.attempt(number + 1), Some(rule.rule), past.time);
        status = next.unwrap_or(status);
    }
    cluster.set_work_item_status(namespace, &item, status);
}
