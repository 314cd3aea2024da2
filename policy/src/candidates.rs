//! Which policies could govern an object that exists already, and why the others do not: for people who ask.

use std::collections::BTreeMap;

use serde_json::Value;
use taskgate_api::Mode;

use crate::{
    Mismatch, Policy, PolicyName, PolicySet, Section, SpawnerFacts,
    metadata::Place,
    ruling::features_of,
    select::{Features, Ruling, Sections},
};

/// A policy that reaches a namespace, and what it is to one object there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The policy.
    pub policy: &'a PolicyName,
    /// Whether it comes before every policy that is not enforced.
    pub enforced: bool,
    /// Higher wins; among equals a `TaskPolicy`, then the name.
    pub priority: i32,
    /// Why it does not select the object; `None` when it does.
    pub mismatch: Option<Mismatch>,
    /// Its sections.
    pub claims: Vec<Claim>,
    /// The labels and annotations that its `metadata` section sets: `label` or `annotation`, and the key.
    pub sets: Vec<(&'static str, &'a str)>,
}

/// A section of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which one.
    pub section: Section,
    /// How far it may go. One that is `Off` can win as well, and then nothing is done.
    pub mode: Mode,
    /// Whether it has the say; of `metadata` several have it, which merge.
    pub wins: bool,
    /// Whether another policy's enforced section wins, which this one may make stricter.
    pub tightens: bool,
}

impl Candidate<'_> {
    /// What it says in `section`, if anything.
    pub fn claim(&self, section: Section) -> Option<Claim> {
        self.claims.iter().find(|claim| claim.section == section).copied()
    }
}

/// The policies that reach `namespace`, strongest first, and what they are to `object` there.
pub fn candidates<'a>(
    policies: &'a PolicySet,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    object: &Value,
    spawner: Option<&SpawnerFacts>,
) -> Vec<Candidate<'a>> {
    let features = features_of(policies, namespace, namespace_labels, object, spawner);
    let sections = Sections::select(policies, namespace, &features);
    let ranked = policies.ranked(namespace);
    ranked.map(|policy| candidate(policy, &features, &sections)).collect()
}

fn candidate<'a>(policy: &'a Policy, features: &Features<'_>, sections: &Sections<'_>) -> Candidate<'a> {
    let claim = |section, own: Option<Option<Mode>>, wins, further: Option<&Policy>| {
        let mode = own?.unwrap_or(policy.mode());
        let tightens = further.is_some_and(|further| further.name() == policy.name());
        Some(Claim {
            section,
            mode,
            wins,
            tightens,
        })
    };
    let claims = [
        claim(
            Section::FailurePolicy,
            policy.failure().map(|(mode, _)| mode),
            is_of(policy, sections.failure.as_ref()),
            sections.failure.and_then(|ruling| ruling.further),
        ),
        claim(
            Section::Cancellation,
            policy.cancellation().map(|(mode, _)| mode),
            is_of(policy, sections.cancellation.as_ref()),
            None,
        ),
        claim(
            Section::Queue,
            policy.queue().map(|(mode, _)| mode),
            is_of(policy, sections.queue.as_ref()),
            None,
        ),
        claim(
            Section::Metadata,
            policy.metadata().map(|(mode, _)| mode),
            is_of(policy, &sections.metadata),
            None,
        ),
        claim(
            Section::Retry,
            policy.retry().map(|(mode, _)| mode),
            is_of(policy, sections.retry.as_ref()),
            sections.retry.and_then(|ruling| ruling.further),
        ),
    ];
    let entries = policy.metadata().into_iter().flat_map(|(_, rule)| &rule.entries);
    let place = |place| match place {
        Place::Label => "label",
        Place::Annotation => "annotation",
    };
    Candidate {
        policy: policy.name(),
        enforced: policy.is_enforced(),
        priority: policy.priority(),
        mismatch: policy.mismatch(features),
        claims: claims.into_iter().flatten().collect(),
        sets: entries.map(|entry| (place(entry.place), &*entry.key)).collect(),
    }
}

/// Whether one of the rulings is the policy's.
fn is_of<'a, T: 'a>(policy: &Policy, rulings: impl IntoIterator<Item = &'a Ruling<'a, T>>) -> bool {
    rulings.into_iter().any(|ruling| ruling.policy.name() == policy.name())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::policy;

    #[test]
    fn who_does_not_select_the_task_says_why() {
        let policies = PolicySet::new([
            policy("wide", json!({"queueName": "all"})),
            policy("off", json!({"mode": "Off", "queueName": "none"})),
            policy("named", json!({"priority": 7, "selector": {"spawnerNames": ["other"]}})),
            policy("typed", json!({"selector": {"taskTypes": ["codex"]}})),
            policy(
                "chosen",
                json!({"selector": {"spawnerSelector": {"matchLabels": {"a": "b"}}}}),
            ),
            policy(
                "labelled",
                json!({"selector": {"taskSelector": {"matchLabels": {"a": "b"}}}}),
            ),
        ]);
        let task =
            json!({"metadata": {"name": "t", "labels": {"kelos.dev/taskspawner": "fixer"}}, "spec": {"type": "x"}});
        let found = candidates(&policies, "team", &BTreeMap::new(), &task, None);
        let found: Vec<_> = found.iter().map(|one| (one.policy.to_string(), one.mismatch)).collect();
        let named = |name: &str, why| (format!("TaskPolicy/{name}"), why);
        assert_eq!(
            found,
            [
                named("named", Some(Mismatch::SpawnerName)),
                named("chosen", Some(Mismatch::SpawnerLabels)),
                named("labelled", Some(Mismatch::TaskLabels)),
                named("off", Some(Mismatch::Off)),
                named("typed", Some(Mismatch::TaskType)),
                named("wide", None),
            ]
        );
    }

    #[test]
    fn the_strongest_has_the_say_even_when_it_is_off_and_metadata_merges() {
        let policies = PolicySet::new([
            policy(
                "a",
                json!({"failurePolicy": {"maxRetriesPerItem": 3}, "metadata": {"labels": {"a": "b"}}}),
            ),
            policy(
                "b",
                json!({
                    "priority": 1, "failurePolicy": {"mode": "Off"}, "queueName": "small", "queueMode": "Warn",
                    "metadata": {"annotations": {"c": "d"}},
                }),
            ),
        ]);
        let task = json!({"metadata": {"name": "t"}});
        let found = candidates(&policies, "team", &BTreeMap::new(), &task, None);
        let claims = |index: usize| {
            let claims = found[index].claims.iter();
            let text = claims.map(|claim| format!("{}={:?}/{}", claim.section.as_str(), claim.mode, claim.wins));
            text.collect::<Vec<_>>()
        };
        assert_eq!(
            claims(0),
            ["failurePolicy=Off/true", "queue=Warn/true", "metadata=Enforce/true"]
        );
        assert_eq!(claims(1), ["failurePolicy=Enforce/false", "metadata=Enforce/true"]);
        assert_eq!(
            (found[0].sets[0], found[1].sets[0]),
            (("annotation", "c"), ("label", "a"))
        );
    }
}
