//! Selection: for each section of a policy, the policy that wins it for one object.

use std::collections::BTreeMap;

use taskgate_api::{
    Mode, keys,
    task_policy::{CancellationPolicy, FailurePolicy, RetryPolicy},
};

use super::{MetadataRule, Policy, PolicySet, policy::QueueRule};

/// The part of a policy that a reason comes from. A closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    /// `failurePolicy`
    FailurePolicy,
    /// `queueName`
    Queue,
    /// `metadata`
    Metadata,
    /// `cancellationPolicy`, or a user's own request.
    Cancellation,
    /// `retry`
    Retry,
    /// No section: a warning about a Task that Kelos would never start.
    Warnings,
    /// No section: a write to one of taskgate's own objects.
    Write,
}

impl Section {
    /// The name in metrics and audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailurePolicy => "failurePolicy",
            Self::Queue => "queue",
            Self::Metadata => "metadata",
            Self::Cancellation => "cancellationPolicy",
            Self::Retry => "retry",
            Self::Warnings => "warnings",
            Self::Write => "write",
        }
    }
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

/// A section that applies to an object, its policy, and its mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SectionMatch<'a, T> {
    pub(crate) policy: &'a Policy,
    pub(crate) mode: Mode,
    pub(crate) rule: T,
    /// The policy that may make an enforced section stricter.
    pub(crate) further: Option<&'a Policy>,
}

impl<'a, T> SectionMatch<'a, T> {
    fn new(policy: &'a Policy, mode: Option<Mode>, rule: T) -> Self {
        Self {
            policy,
            mode: mode.unwrap_or(policy.mode()),
            rule,
            further: None,
        }
    }

    /// The same policy with another rule.
    pub(crate) fn with_rule<R>(self, rule: R) -> SectionMatch<'a, R> {
        SectionMatch {
            policy: self.policy,
            mode: self.mode,
            rule,
            further: None,
        }
    }
}

/// The sections that apply to an object.
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
        for policy in policies.ranked(namespace).filter(|policy| policy.matches(attributes)) {
            sections.any.get_or_insert(SectionMatch::new(policy, None, ()));
            if !policy.is_enforced() {
                sections.tighten(policies, policy);
            }
            take(&mut sections.failure, policy, policy.failure());
            take(&mut sections.queue, policy, policy.queue());
            take(&mut sections.cancellation, policy, policy.cancellation());
            take(&mut sections.retry, policy, policy.retry());
            let ends = sections
                .metadata
                .last()
                .is_some_and(|matched| matched.mode == Mode::Off);
            if let Some((mode, rule)) = policy.metadata().filter(|_| !ends) {
                sections.metadata.push(SectionMatch::new(policy, mode, rule));
            }
        }
        sections
    }

    /// Lets `further`, which is not enforced, make enforced sections stricter. Of several the strongest does, as it would
    /// otherwise win; one whose mode goes less far than the enforced section's does not.
    fn tighten(&mut self, policies: &'a PolicySet, further: &'a Policy) {
        let both = |enforced: &Policy| policies.stricter.get(enforced.name())?.get(further.name());
        let mode = |mode: Option<Mode>| mode.unwrap_or(further.mode());
        if let (Some(matched), Some((own, _))) = (open(&mut self.failure), further.failure()) {
            matched.further = Some(further);
            if let Some(stricter) = both(matched.policy).and_then(|both| both.failure.as_ref())
                && mode(own) >= matched.mode
            {
                (matched.mode, matched.rule) = (mode(own), stricter);
            }
        }
        // A retry needs both policies: the enforced mode stays.
        if let (Some(matched), Some((own, _))) = (open(&mut self.retry), further.retry()) {
            matched.further = Some(further);
            if let Some(stricter) = both(matched.policy).and_then(|both| both.retry.as_ref())
                && mode(own) >= matched.mode
            {
                matched.rule = stricter;
            }
        }
    }
}

/// The section, if an enforced policy has it and no further one has made it stricter yet.
fn open<'s, 'a, T>(slot: &'s mut Option<SectionMatch<'a, T>>) -> Option<&'s mut SectionMatch<'a, T>> {
    slot.as_mut()
        .filter(|matched| matched.policy.is_enforced() && matched.further.is_none())
}

fn take<'a, T>(slot: &mut Option<SectionMatch<'a, T>>, policy: &'a Policy, section: Option<(Option<Mode>, T)>) {
    if let (None, Some((mode, rule))) = (&slot, section) {
        *slot = Some(SectionMatch::new(policy, mode, rule));
    }
}
