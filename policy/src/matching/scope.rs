//! One lookup for admission, the controller, the offline check and the command line: which policies apply to an object.

use std::collections::BTreeMap;

use serde_json::Value;
use taskgate_api::{
    Mode,
    kelos::Task,
    task_policy::{CancellationPolicy, FailurePolicy, QueueOnDeactivation, RetriedKind, RetryPolicy},
};

use super::{
    Candidate, ItemIdentity, PolicyName, PolicySet, Section, SectionMatch,
    identity::find_item,
    sections::{Attributes, Sections},
};
use crate::{
    issue_source::SpawnerInfo,
    template::{Budget, Managed, TemplateInput},
};

/// The inputs of every policy lookup: all policies, the object's namespace and its labels, and the Task's spawner.
#[derive(Clone, Copy, Debug)]
pub struct PolicyScope<'p, 's> {
    /// Every policy in the cluster.
    pub policies: &'p PolicySet,
    /// The namespace of the object.
    pub namespace: &'s str,
    /// The labels of that namespace.
    pub namespace_labels: &'s BTreeMap<String, String>,
    /// The `TaskSpawner` of the Task, when it exists.
    pub spawner: Option<&'s SpawnerInfo>,
}

/// The failure section that applies to a Task.
#[derive(Clone, Debug)]
pub struct FailureRule<'a> {
    /// The policy that it belongs to.
    pub policy: &'a PolicyName,
    /// Its mode; never `Off`.
    pub mode: Mode,
    /// The section.
    pub rule: &'a FailurePolicy,
    /// The Task's work item; `None` for a Task that belongs to none.
    pub item: Option<ItemIdentity>,
}

/// The retry section that applies to an object.
#[derive(Clone, Debug)]
pub struct RetryRule<'a> {
    /// The policy that it belongs to.
    pub policy: &'a PolicyName,
    /// Its mode; never `Off`.
    pub mode: Mode,
    /// The section.
    pub rule: &'a RetryPolicy,
}

/// A section that applies to a Task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoverningSection<'a> {
    /// The section.
    pub section: Section,
    /// The policy that it belongs to.
    pub policy: &'a PolicyName,
    /// Its mode; never `Off`.
    pub mode: Mode,
}

impl<'p, 's> PolicyScope<'p, 's> {
    /// The lookup for objects in `namespace`, which has these labels, made by `spawner`.
    pub fn new(
        policies: &'p PolicySet,
        namespace: &'s str,
        namespace_labels: &'s BTreeMap<String, String>,
        spawner: Option<&'s SpawnerInfo>,
    ) -> Self {
        Self {
            policies,
            namespace,
            namespace_labels,
            spawner,
        }
    }

    /// The lookup for the object of `input`.
    pub(crate) fn of_input(policies: &'p PolicySet, input: &TemplateInput<'s>) -> Self {
        Self::new(policies, input.namespace, input.namespace_labels, input.spawner)
    }

    /// The failure section that applies to the Task `object`, if one does.
    pub fn failure(&self, object: &Value) -> Option<FailureRule<'p>> {
        let matched = enabled(self.sections(object).failure)?;
        let input = TemplateInput {
            object,
            namespace: self.namespace,
            namespace_labels: self.namespace_labels,
            spawner: self.spawner,
            workspace: None,
            user: None,
            source_fields: None,
        };
        Some(FailureRule {
            policy: matched.policy.name(),
            mode: matched.mode,
            rule: matched.rule,
            item: find_item(&input, matched.policy.item_key(), &[], Budget::default()).item,
        })
    }

    /// The cancellation section that applies to the Task `object`, if one does: its policy, its mode, and the section.
    pub fn cancellation(&self, object: &Value) -> Option<(&'p PolicyName, Mode, &'p CancellationPolicy)> {
        let matched = enabled(self.sections(object).cancellation)?;
        Some((matched.policy.name(), matched.mode, matched.rule))
    }

    /// The retry section that applies to `object`, a Workload or a Task without a spawner, if one does.
    pub fn retry(&self, kind: RetriedKind, object: &Value) -> Option<RetryRule<'p>> {
        let matched = enabled(self.sections(object).retry).filter(|matched| matched.rule.covers(kind))?;
        Some(RetryRule {
            policy: matched.policy.name(),
            mode: matched.mode,
            rule: matched.rule,
        })
    }

    /// What becomes of the Job of the Task `object` when Kueue deactivates it, by a policy that is enforced.
    pub fn on_deactivation(&self, object: &Value) -> QueueOnDeactivation {
        let queue = self.sections(object).queue;
        let enforced = queue.filter(|matched| matched.mode == Mode::Enforce);
        enforced.map(|matched| matched.rule.on_deactivation).unwrap_or_default()
    }

    /// The sections that apply to the Task `object`: one of each kind, and of `metadata` all that merge. Retry, which applies
    /// to other objects, is not among them.
    pub fn governing(&self, object: &Value) -> Vec<GoverningSection<'p>> {
        let sections = self.sections(object);
        let applying = |(section, matched): &(Section, SectionMatch<'_, ()>)| {
            *section != Section::Retry && matched.mode != Mode::Off
        };
        let governing = sections
            .iter()
            .filter(applying)
            .map(|(section, matched)| GoverningSection {
                section,
                policy: matched.policy.name(),
                mode: matched.mode,
            });
        governing.collect()
    }

    /// All policies of the namespace, strongest first, and how each relates to `object`.
    pub fn candidates(&self, object: &Value) -> Vec<Candidate<'p>> {
        let attributes = self.attributes(object);
        let sections = self.select(&attributes);
        let ranked = self.policies.ranked(self.namespace, attributes.spawner);
        ranked
            .map(|policy| Candidate::new(policy, &attributes, &sections))
            .collect()
    }

    /// The sections that apply to `object`, whatever their mode.
    pub(crate) fn sections(&self, object: &Value) -> Sections<'p> {
        self.select(&self.attributes(object))
    }

    /// The sections that apply to an object with these attributes.
    pub(crate) fn select(&self, attributes: &Attributes<'_>) -> Sections<'p> {
        Sections::select(self.policies, self.namespace, attributes)
    }

    /// The attributes of `object` that policies select by.
    pub(crate) fn attributes<'o>(&self, object: &'o Value) -> Attributes<'o>
    where
        's: 'o,
    {
        let task = Task::of(object);
        let labels = task.metadata().labels();
        Attributes {
            namespace_labels: self.namespace_labels,
            spawner: task.spawner(),
            spawner_labels: self.spawner.map(|spawner| &spawner.labels),
            agent_type: task.agent_type(),
            labels: selectable(labels, &self.managed()),
        }
    }

    /// The keys that the policies of the namespace set.
    pub(crate) fn managed(&self) -> Managed<'p> {
        self.policies.managed(self.namespace)
    }
}

/// The labels that policies select by: without those that a policy overrides, since two policies could set them in turn for
/// ever.
pub(crate) fn selectable<'l>(
    labels: impl Iterator<Item = (&'l str, &'l str)>,
    managed: &Managed<'_>,
) -> BTreeMap<String, String> {
    let selectable = labels.filter(|(key, _)| !managed.overrides(key));
    selectable
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The section, unless its mode is `Off`.
fn enabled<T>(matched: Option<SectionMatch<'_, T>>) -> Option<SectionMatch<'_, T>> {
    matched.filter(|matched| matched.mode != Mode::Off)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::policy;

    #[test]
    fn each_section_has_its_policy_and_one_that_is_off_does_not_apply() {
        let policies = PolicySet::new([
            policy(
                "wide",
                json!({"failurePolicy": {"maxRetriesPerItem": 3}, "metadata": {"labels": {"a": "b"}}}),
            ),
            policy(
                "narrow",
                json!({
                    "priority": 1, "selector": {"spawnerNames": ["fixer"]},
                    "failurePolicy": {"mode": "Off"}, "queueName": "small", "queueMode": "Observe",
                }),
            ),
        ]);
        let found = |spawner: &str| {
            let task = json!({"metadata": {"name": "t", "labels": {"kelos.dev/taskspawner": spawner}}});
            let found = PolicyScope::new(&policies, "team", &BTreeMap::new(), None).governing(&task);
            let text = found
                .iter()
                .map(|found| format!("{}={}/{:?}", found.section, found.policy, found.mode));
            text.collect::<Vec<_>>()
        };
        let queue = "queue=TaskPolicy/narrow/Observe";
        let metadata = "metadata=TaskPolicy/wide/Enforce";
        assert_eq!(found("fixer"), [queue, metadata]);
        assert_eq!(found("other"), ["failurePolicy=TaskPolicy/wide/Enforce", metadata]);
    }
}
