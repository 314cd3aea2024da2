//! Selection: for each section of a policy, the policy that wins it for one object.

use std::collections::BTreeMap;

use strum::{Display, IntoStaticStr};
use taskgate_api::{
    Mode, keys,
    task_policy::{CancellationPolicy, FailurePolicy, RetryPolicy},
};

use super::{MetadataRule, Mismatch, Policy, PolicyName, PolicySet, policy::QueueRule};

/// The part of a policy that a reason comes from. A closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Display, IntoStaticStr)]
#[strum(serialize_all = "camelCase")]
pub enum Section {
    /// `failurePolicy`
    FailurePolicy,
    /// `queueName`
    Queue,
    /// `metadata`
    Metadata,
    /// `cancellationPolicy`, or a user's own request.
    #[strum(serialize = "cancellationPolicy")]
    Cancellation,
    /// `retry`
    Retry,
    /// No section: a warning about a Task that Kelos would never start.
    Warnings,
    /// No section: a write to one of taskgate's own objects.
    Write,
}

/// The attributes of an object that policies select by.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a> {
    pub(crate) namespace_labels: &'a BTreeMap<String, String>,
    pub(crate) spawner: Option<&'a str>,
    pub(crate) spawner_labels: Option<&'a BTreeMap<String, String>>,
    pub(crate) agent_type: Option<&'a str>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A section, its policy, and its mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SectionMatch<'a, T> {
    pub(crate) policy: &'a Policy,
    pub(crate) mode: Mode,
    pub(crate) rule: T,
    /// The policy that may make an enforced section stricter.
    pub(crate) further: Option<&'a Policy>,
}

impl<'a, T> SectionMatch<'a, T> {
    /// The same policy with another rule.
    pub(crate) fn with_rule<R>(self, rule: R) -> SectionMatch<'a, R> {
        SectionMatch {
            policy: self.policy,
            mode: self.mode,
            rule,
            further: self.further,
        }
    }

    /// Whether an enforced policy has the section and no further one has made it stricter yet.
    fn is_open(&self) -> bool {
        self.policy.is_enforced() && self.further.is_none()
    }
}

/// The sections that apply to an object, or those of one policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sections<'a> {
    /// The strongest policy of all, whatever its sections.
    pub(crate) any: Option<SectionMatch<'a, ()>>,
    pub(crate) failure: Option<SectionMatch<'a, &'a FailurePolicy>>,
    pub(crate) queue: Option<SectionMatch<'a, QueueRule<'a>>>,
    /// All of them, strongest first: they merge key by key. One with mode `Off` is the last.
    pub(crate) metadata: Vec<SectionMatch<'a, &'a MetadataRule>>,
    pub(crate) cancellation: Option<SectionMatch<'a, &'a CancellationPolicy>>,
    pub(crate) retry: Option<SectionMatch<'a, &'a RetryPolicy>>,
}

impl<'a> Sections<'a> {
    /// For each section the strongest policy that has it. A section with mode `Off` wins as well, and then does nothing:
    /// that is how one spawner is exempted from a wider policy.
    pub(crate) fn select(policies: &'a PolicySet, namespace: &str, attributes: &Attributes<'_>) -> Self {
        let mut sections = Self::default();
        // The API server sends no object of such a namespace; the controller ignores its objects as well.
        if keys::is_opted_out(attributes.namespace_labels) {
            return sections;
        }
        let matching = |policy: &&Policy| policy.mismatch(attributes).is_none();
        for policy in policies.ranked(namespace, attributes.spawner).filter(matching) {
            sections.any.get_or_insert_with(|| policy.section(None, ()));
            if !policy.is_enforced() {
                sections.tighten(policies, policy);
            }
            sections.failure = sections.failure.or_else(|| policy.failure());
            sections.queue = sections.queue.or_else(|| policy.queue());
            sections.cancellation = sections.cancellation.or_else(|| policy.cancellation());
            sections.retry = sections.retry.or_else(|| policy.retry());
            if sections.metadata.last().is_none_or(|last| last.mode != Mode::Off) {
                sections.metadata.extend(policy.metadata());
            }
        }
        sections
    }

    /// Lets `further`, which is not enforced, make enforced sections stricter. Of several the strongest does, as it would
    /// otherwise win; one whose mode goes less far than the enforced section's does not.
    fn tighten(&mut self, policies: &'a PolicySet, further: &'a Policy) {
        let both = |enforced: &Policy| policies.stricter.get(enforced.name())?.get(further.name());
        let failure = self.failure.as_mut().filter(|matched| matched.is_open());
        if let (Some(matched), Some(own)) = (failure, further.failure()) {
            matched.further = Some(further);
            if let Some(stricter) = both(matched.policy).and_then(|both| both.failure.as_ref())
                && own.mode >= matched.mode
            {
                (matched.mode, matched.rule) = (own.mode, stricter);
            }
        }
        // A retry needs both policies: the enforced mode stays.
        let retry = self.retry.as_mut().filter(|matched| matched.is_open());
        if let (Some(matched), Some(own)) = (retry, further.retry()) {
            matched.further = Some(further);
            if let Some(stricter) = both(matched.policy).and_then(|both| both.retry.as_ref())
                && own.mode >= matched.mode
            {
                matched.rule = stricter;
            }
        }
    }

    /// All of them, without their rules.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Section, SectionMatch<'a, ()>)> {
        fn each<'a, T: Copy>(
            section: Section,
            matches: impl IntoIterator<Item = SectionMatch<'a, T>>,
        ) -> impl Iterator<Item = (Section, SectionMatch<'a, ()>)> {
            matches.into_iter().map(move |matched| (section, matched.with_rule(())))
        }
        each(Section::FailurePolicy, self.failure)
            .chain(each(Section::Cancellation, self.cancellation))
            .chain(each(Section::Queue, self.queue))
            .chain(each(Section::Metadata, self.metadata.iter().copied()))
            .chain(each(Section::Retry, self.retry))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

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

impl<'a> Candidate<'a> {
    /// How `policy` relates to an object with these attributes, to which these `sections` apply.
    pub(super) fn new(policy: &'a Policy, attributes: &Attributes<'_>, sections: &Sections<'_>) -> Self {
        let is_this = |other: &Policy| other.name() == policy.name();
        let own = policy.sections();
        let claims = own.iter().map(|(section, own)| {
            let applied = || sections.iter().filter(|(other, _)| *other == section);
            Claim {
                section,
                mode: own.mode,
                wins: applied().any(|(_, matched)| is_this(matched.policy)),
                tightens: applied().any(|(_, matched)| matched.further.is_some_and(is_this)),
            }
        });
        let entries = policy.metadata().into_iter().flat_map(|section| &section.rule.entries);
        Self {
            policy: policy.name(),
            enforced: policy.is_enforced(),
            priority: policy.priority(),
            mismatch: policy.mismatch(attributes),
            claims: claims.collect(),
            sets: entries.map(|entry| (entry.kind.into(), &*entry.key)).collect(),
        }
    }

    /// Its `section`, if it has one.
    pub fn claim(&self, section: Section) -> Option<Claim> {
        self.claims.iter().find(|claim| claim.section == section).copied()
    }
}

#[cfg(test)]
mod candidates_tests {
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
            let text = claims.map(|claim| format!("{}={:?}/{}", claim.section, claim.mode, claim.wins));
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
