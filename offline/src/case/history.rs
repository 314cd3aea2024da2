//! How earlier Tasks of an item ended, made into the item's memory by the controller's own bookkeeping.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use taskgate_api::{
    WorkItemStatus,
    metadata::Metadata,
    work_item::{Attempt, Outcome},
};
use taskgate_policy::{failure_rule, record};

use crate::{Proposal, World};

/// The end of one earlier Task. Exactly one of the times is there.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Past {
    /// The agent failed.
    Failed(Failed),
    /// The cluster failed the agent.
    Infrastructure(Infrastructure),
    /// It went well.
    Succeeded(Succeeded),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failed {
    failed: Timestamp,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    cost: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Infrastructure {
    infrastructure: Timestamp,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    cost: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Succeeded {
    succeeded: Timestamp,
    #[serde(default)]
    cost: Option<String>,
}

impl Past {
    fn time(&self) -> Timestamp {
        match self {
            Self::Failed(past) => past.failed,
            Self::Infrastructure(past) => past.infrastructure,
            Self::Succeeded(past) => past.succeeded,
        }
    }

    fn attempt(&self, number: usize) -> Attempt {
        let (outcome, reason, cost) = match self {
            Self::Failed(past) => (Outcome::Failed, past.reason.as_deref().unwrap_or("Failed"), &past.cost),
            Self::Infrastructure(past) => {
                let reason = past.reason.as_deref().unwrap_or("Evicted");
                (Outcome::Infrastructure, reason, &past.cost)
            }
            Self::Succeeded(past) => (Outcome::Succeeded, "Succeeded", &past.cost),
        };
        Attempt {
            uid: format!("history-{number}"),
            name: format!("history-{number}"),
            outcome,
            opened: false,
            reason: Some(reason.to_owned()),
            cancelled_by: None,
            start_time: None,
            completion_time: Some(Time(self.time())),
            cost_usd: cost.clone(),
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
    let Some(rule) = failure_rule(world.policies(), namespace, &labels, &object, spawner) else {
        return;
    };
    let Some(item) = rule.item else { return };
    let mut past: Vec<_> = history.iter().filter(|past| past.time() <= now).collect();
    past.sort_by_key(|past| past.time());
    let mut status = WorkItemStatus::default();
    for (number, past) in past.into_iter().enumerate() {
        let next = record(&status, past.attempt(number + 1), Some(rule.rule), past.time());
        status = next.unwrap_or(status);
    }
    world.remember(namespace, &item, status);
}
