//! How earlier Tasks of an item ended, made into the item's memory by the controller's own bookkeeping.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use taskgate_api::{
    WorkItemStatus,
    metadata::Metadata,
    work_item::{Attempt, Outcome},
};
use taskgate_policy::{PolicyScope, record};

use crate::{Proposal, World};

/// The end of one earlier Task.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Past {
    outcome: Outcome,
    time: Timestamp,
    reason: Option<String>,
    cost: Option<String>,
}

/// The same as it is written: exactly one of the times is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The agent failed.
    #[serde(default)]
    failed: Option<Timestamp>,
    /// The cluster failed the agent.
    #[serde(default)]
    infrastructure: Option<Timestamp>,
    /// It went well.
    #[serde(default)]
    succeeded: Option<Timestamp>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    cost: Option<String>,
}

impl TryFrom<Written> for Past {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let (outcome, time) = match (written.failed, written.infrastructure, written.succeeded) {
            (Some(time), None, None) => (Outcome::Failed, time),
            (None, Some(time), None) => (Outcome::Infrastructure, time),
            (None, None, Some(time)) => (Outcome::Succeeded, time),
            _ => return Err("history: one of failed, infrastructure and succeeded says when"),
        };
        Ok(Self {
            outcome,
            time,
            reason: written.reason,
            cost: written.cost,
        })
    }
}

impl Past {
    fn attempt(&self, number: usize) -> Attempt {
        let usual = match self.outcome {
            Outcome::Infrastructure => "Evicted",
            Outcome::Succeeded => "Succeeded",
            _ => "Failed",
        };
        Attempt {
            uid: format!("history-{number}"),
            name: format!("history-{number}"),
            outcome: self.outcome,
            opened: false,
            reason: Some(self.reason.as_deref().unwrap_or(usual).to_owned()),
            cancelled_by: None,
            start_time: None,
            completion_time: Some(Time(self.time)),
            cost_usd: self.cost.clone(),
            input_tokens: None,
            output_tokens: None,
        }
    }
}

/// Puts what has happened until `now` into the memory of the item that `proposal` is about: the Task's, or the one of the
/// Job's Task. Without a policy that remembers items nothing is remembered.
pub(super) fn remember(world: &mut World, history: &[Past], proposal: &Proposal, now: Timestamp) {
    if history.is_empty() {
        return;
    }
    let namespace = proposal.namespace.as_str();
    let object = match proposal.kind.kind.as_str() {
        "Job" => Metadata::of(&proposal.object)
            .controller()
            .and_then(|owner| world.task(namespace, owner.name)),
        _ => Some(&proposal.object),
    };
    let Some(object) = object.cloned() else { return };
    let labels = world.namespace_labels(namespace);
    let spawner = taskgate_api::kelos::Task::of(&object).spawner();
    let spawner = spawner.and_then(|name| world.spawner_facts(namespace, name));
    let Some(rule) = PolicyScope::new(world.policies(), namespace, &labels, spawner).failure(&object) else {
        return;
    };
    let Some(item) = rule.item else { return };
    let mut past: Vec<_> = history.iter().filter(|past| past.time <= now).collect();
    past.sort_by_key(|past| past.time);
    let mut status = WorkItemStatus::default();
    for (number, past) in past.into_iter().enumerate() {
        let next = record(&status, past.attempt(number + 1), Some(rule.rule), past.time);
        status = next.unwrap_or(status);
    }
    world.remember(namespace, &item, status);
}
