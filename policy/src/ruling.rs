//! What a policy says of the failures of a Task that exists already: the controller's way to the same answer that
//! admission gave.

use std::collections::BTreeMap;

use serde_json::Value;
use taskgate_api::{
    Mode,
    kelos::Task,
    task_policy::{CancellationPolicy, FailurePolicy, QueueOnDeactivation, RetryPolicy},
};

use crate::{
    ItemIdentity, PolicyName, PolicySet, SpawnerFacts,
    identity::find_item,
    metadata::Planned,
    retry::Retried,
    select::{Features, Sections},
    template::{Budget, Scope},
};

/// The failure section that governs a Task.
#[derive(Clone, Debug)]
pub struct FailureRule<'a> {
    /// The policy that it belongs to.
    pub policy: &'a PolicyName,
    /// How far it may go; never `Off`.
    pub mode: Mode,
    /// What it says.
    pub rule: &'a FailurePolicy,
    /// The Task's work item; `None` for a Task that belongs to none.
    pub item: Option<ItemIdentity>,
}

/// The failure section that governs the Task `object` in `namespace`, if one does.
pub fn failure_rule<'a>(
    policies: &'a PolicySet,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    object: &Value,
    spawner: Option<&SpawnerFacts>,
) -> Option<FailureRule<'a>> {
    let ruling = sections_of(policies, namespace, namespace_labels, object, spawner)
        .failure
        .filter(|ruling| ruling.mode != Mode::Off)?;
    let scope = Scope {
        object,
        namespace,
        namespace_labels,
        spawner,
        workspace: None,
        user: None,
        tracked: None,
    };
    Some(FailureRule {
        policy: ruling.policy.name(),
        mode: ruling.mode,
        rule: ruling.rule,
        item: find_item(&scope, ruling.policy.item_key(), &[], Budget::default()).item,
    })
}

/// The cancellation section that governs the Task `object` in `namespace`, if one does: the policy, how far it may go, and
/// what it says.
pub fn cancellation_rule<'a>(
    policies: &'a PolicySet,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    object: &Value,
    spawner: Option<&SpawnerFacts>,
) -> Option<(&'a PolicyName, Mode, &'a CancellationPolicy)> {
    let sections = sections_of(policies, namespace, namespace_labels, object, spawner);
    let ruling = sections.cancellation.filter(|ruling| ruling.mode != Mode::Off)?;
    Some((ruling.policy.name(), ruling.mode, ruling.rule))
}

/// The retry section that governs an object.
#[derive(Clone, Debug)]
pub struct RetryRule<'a> {
    /// The policy that it belongs to.
    pub policy: &'a PolicyName,
    /// How far it may go; never `Off`.
    pub mode: Mode,
    /// What it says.
    pub rule: &'a RetryPolicy,
}

/// The retry section that governs `object` in `namespace`, a Workload or a Task without a spawner, if one does.
pub fn retry_rule<'a>(
    policies: &'a PolicySet,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    object: Retried<'_>,
) -> Option<RetryRule<'a>> {
    let sections = sections_of(policies, namespace, namespace_labels, object.object(), None);
    let ruling = sections
        .retry
        .filter(|ruling| ruling.mode != Mode::Off && ruling.rule.covers(object.kind()))?;
    Some(RetryRule {
        policy: ruling.policy.name(),
        mode: ruling.mode,
        rule: ruling.rule,
    })
}

/// What the policy that governs the Task `object` wants of a Job that Kueue deactivated. One that is not enforced wants
/// nothing.
pub fn on_deactivation(
    policies: &PolicySet,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    object: &Value,
    spawner: Option<&SpawnerFacts>,
) -> QueueOnDeactivation {
    sections_of(policies, namespace, namespace_labels, object, spawner)
        .queue
        .filter(|ruling| ruling.mode == Mode::Enforce)
        .map(|ruling| ruling.rule.on_deactivation)
        .unwrap_or_default()
}

/// The winning sections for a Task that exists already.
pub(crate) fn sections_of<'a>(
    policies: &'a PolicySet,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    object: &Value,
    spawner: Option<&SpawnerFacts>,
) -> Sections<'a> {
    let features = features_of(policies, namespace, namespace_labels, object, spawner);
    Sections::select(policies, namespace, &features)
}

/// What policies select the object by, which exists already.
pub(crate) fn features_of<'a>(
    policies: &PolicySet,
    namespace: &str,
    namespace_labels: &'a BTreeMap<String, String>,
    object: &'a Value,
    spawner: Option<&'a SpawnerFacts>,
) -> Features<'a> {
    let task = Task::of(object);
    Features {
        namespace_labels,
        spawner: task.spawner(),
        spawner_labels: spawner.map(|spawner| &spawner.labels),
        agent_type: task.agent_type(),
        labels: Planned::of(object).selectable(&policies.managed(namespace)),
    }
}
