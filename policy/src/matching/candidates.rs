//! The policies that could apply to an object, and why the others do not.

use taskgate_api::Mode;

use super::{
    Mismatch, Policy, PolicyName, Section, SectionMatch,
    sections::{Attributes, Sections},
};

/// A policy of a namespace, and how it relates to one object there.
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
    /// Its mode. A section that is `Off` can win as well, and then nothing is done.
    pub mode: Mode,
    /// Whether it applies; of `metadata` several sections apply, and merge.
    pub wins: bool,
    /// Whether another policy's enforced section wins, which this one may make stricter.
    pub tightens: bool,
}

impl Candidate<'_> {
    /// Its `section`, if it has one.
    pub fn claim(&self, section: Section) -> Option<Claim> {
        self.claims.iter().find(|claim| claim.section == section).copied()
    }
}

pub(super) fn candidate<'a>(policy: &'a Policy, attributes: &Attributes<'_>, sections: &Sections<'_>) -> Candidate<'a> {
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
            sections.failure.and_then(|matched| matched.further),
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
            sections.retry.and_then(|matched| matched.further),
        ),
    ];
    let entries = policy.metadata().into_iter().flat_map(|(_, rule)| &rule.entries);
    Candidate {
        policy: policy.name(),
        enforced: policy.is_enforced(),
        priority: policy.priority(),
        mismatch: policy.mismatch(attributes),
        claims: claims.into_iter().flatten().collect(),
        sets: entries.map(|entry| (entry.kind.as_str(), &*entry.key)).collect(),
    }
}

/// Whether one of `matches` is a section of the policy.
fn is_of<'a, T: 'a>(policy: &Policy, matches: impl IntoIterator<Item = &'a SectionMatch<'a, T>>) -> bool {
    matches
        .into_iter()
        .any(|matched| matched.policy.name() == policy.name())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::{fixtures::policy, matching::PolicyScope, matching::PolicySet};

    #[test]
    fn a_policy_that_does_not_match_states_why() {
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
        let found = PolicyScope::new(&policies, "team", &BTreeMap::new(), None).candidates(&task);
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
    fn the_strongest_section_wins_even_when_it_is_off_and_metadata_merges() {
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
        let found = PolicyScope::new(&policies, "team", &BTreeMap::new(), None).candidates(&task);
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
