//! Which policies speak for a request, section by section.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
};

use taskgate_api::{
    Mode,
    kelos::Task,
    keys,
    task_policy::{CancellationPolicy, FailurePolicy, RetryPolicy},
};

use crate::{
    Facts, ItemIdentity, Kind, MAX_POLICIES, Operation, Phase, Policy, PolicyName, Request,
    decision::Finding,
    identity::find_item,
    metadata::{self, Keys, Managed, MetadataRule, Planned, Scope, Stage, Values},
    policy::QueueRule,
    stricter,
    template::Budget,
};

/// How often labels that a policy sets may make a further policy apply. A longer chain is cut there.
const MAX_ROUNDS: usize = 16;

/// Every policy of a cluster, in order of precedence.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    cluster: Vec<Policy>,
    namespaced: HashMap<String, Vec<Policy>>,
    selects_task_labels: bool,
    follows_sources: bool,
    queues: bool,
    cluster_keys: Keys,
    namespaced_keys: HashMap<String, Keys>,
    /// What becomes of the sections of an enforced policy, by its name, where a further one is stricter, by that one's name.
    stricter: HashMap<PolicyName, HashMap<PolicyName, Stricter>>,
}

/// The sections of an enforced policy together with those of a further one.
#[derive(Clone, Debug)]
struct Stricter {
    failure: Option<FailurePolicy>,
    retry: Option<RetryPolicy>,
}

impl Stricter {
    fn of(enforced: &Policy, further: &Policy) -> Self {
        let failures = enforced.failure().zip(further.failure());
        let retries = enforced.retry().zip(further.retry());
        Self {
            failure: failures.map(|((_, enforced), (_, further))| stricter::failure(enforced, further)),
            retry: retries.map(|((_, enforced), (_, further))| stricter::retry(enforced, further)),
        }
    }

    fn is_none(&self) -> bool {
        self.failure.is_none() && self.retry.is_none()
    }
}

impl PolicySet {
    /// Sorts `policies` by precedence.
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        let mut set = Self::default();
        for policy in policies {
            set.selects_task_labels |= policy.selects_task_labels();
            set.follows_sources |= policy.follows_sources();
            set.queues |= policy.queue().is_some();
            let metadata = policy.metadata().map(|(_, rule)| rule);
            match policy.name() {
                PolicyName::Cluster { .. } => {
                    if let Some(rule) = metadata {
                        set.cluster_keys.add(rule);
                    }
                    set.cluster.push(policy);
                }
                PolicyName::Namespaced { namespace, .. } => {
                    let keys = set.namespaced_keys.entry(namespace.clone()).or_default();
                    if let Some(rule) = metadata {
                        keys.add(rule);
                    }
                    set.namespaced.entry(namespace.clone()).or_default().push(policy);
                }
            }
        }
        for policies in set.namespaced.values_mut().chain([&mut set.cluster]) {
            policies.sort_by(|a, b| a.rank().cmp(&b.rank()));
        }
        set.stricter = set.stricter();
        set
    }

    fn stricter(&self) -> HashMap<PolicyName, HashMap<PolicyName, Stricter>> {
        let (enforced, others): (Vec<_>, Vec<_>) = self.cluster.iter().partition(|policy| policy.is_enforced());
        let further = || others.iter().copied().chain(self.namespaced.values().flatten());
        let of = |enforced: &Policy| {
            let each = further().map(|further| (further.name().clone(), Stricter::of(enforced, further)));
            (
                enforced.name().clone(),
                each.filter(|(_, both)| !both.is_none()).collect(),
            )
        };
        enforced.into_iter().map(of).collect()
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.cluster.len() + self.namespaced.values().map(Vec::len).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there may be one more policy of this name's kind, or `name` is there already.
    pub(crate) fn has_room_for(&self, name: &PolicyName) -> bool {
        let others = match name {
            PolicyName::Namespaced { namespace, .. } => self.namespaced.get(namespace),
            PolicyName::Cluster { .. } => Some(&self.cluster),
        };
        others.is_none_or(|others| others.len() < MAX_POLICIES || others.iter().any(|policy| policy.name() == name))
    }

    /// Whether any policy waits for what only the source of an item knows.
    pub fn follows_sources(&self) -> bool {
        self.follows_sources
    }

    /// Whether any of them gives Jobs to queues.
    pub fn queues(&self) -> bool {
        self.queues
    }

    /// The keys that policies set which reach `namespace`.
    pub(crate) fn managed(&self, namespace: &str) -> Managed<'_> {
        Managed {
            cluster: &self.cluster_keys,
            namespaced: self.namespaced_keys.get(namespace),
        }
    }

    /// The policies that reach `namespace`, strongest first: a merge of two sorted lists.
    pub(crate) fn ranked<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Policy> {
        let mut local = self.namespaced.get(namespace).into_iter().flatten().peekable();
        let mut cluster = self.cluster.iter().peekable();
        std::iter::from_fn(move || match (local.peek(), cluster.peek()) {
            (Some(a), Some(b)) if a.rank().cmp(&b.rank()) == Ordering::Greater => cluster.next(),
            (Some(_), _) => local.next(),
            (None, _) => cluster.next(),
        })
    }
}

/// What policies select Tasks by.
#[derive(Clone, Debug)]
pub(crate) struct Features<'a> {
    pub(crate) namespace_labels: &'a BTreeMap<String, String>,
    pub(crate) spawner: Option<&'a str>,
    pub(crate) spawner_labels: Option<&'a BTreeMap<String, String>>,
    pub(crate) agent_type: Option<&'a str>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A section that won, the policy that it belongs to, and how far it may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ruling<'a, T> {
    pub(crate) policy: &'a Policy,
    pub(crate) mode: Mode,
    pub(crate) rule: T,
    /// Of an enforced section the policy that may make it stricter.
    pub(crate) further: Option<&'a Policy>,
}

/// The winning sections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sections<'a> {
    /// The strongest policy of all, whatever it says.
    pub(crate) any: Option<Ruling<'a, ()>>,
    pub(crate) failure: Option<Ruling<'a, &'a FailurePolicy>>,
    pub(crate) queue: Option<Ruling<'a, QueueRule<'a>>>,
    /// All of them, strongest first: they merge key by key. One with mode `Off` is the last.
    pub(crate) metadata: Vec<Ruling<'a, &'a MetadataRule>>,
    pub(crate) cancellation: Option<Ruling<'a, &'a CancellationPolicy>>,
    pub(crate) retry: Option<Ruling<'a, &'a RetryPolicy>>,
}

impl<'a> Sections<'a> {
    /// For each section the strongest policy that has it. A section with mode `Off` wins as well, and then does nothing:
    /// that is how one spawner is exempted from a wider policy.
    pub(crate) fn select(policies: &'a PolicySet, namespace: &str, features: &Features<'_>) -> Self {
        let mut sections = Self::default();
        // The API server sends nothing of such a namespace; what the controller knows of it is governed by nothing either.
        if keys::is_opted_out(features.namespace_labels) {
            return sections;
        }
        for policy in policies.ranked(namespace).filter(|policy| policy.matches(features)) {
            let mode = policy.mode();
            sections.any.get_or_insert(Ruling {
                policy,
                mode,
                rule: (),
                further: None,
            });
            if !policy.is_enforced() {
                sections.tighten(policies, policy);
            }
            take(&mut sections.failure, policy, policy.failure());
            take(&mut sections.queue, policy, policy.queue());
            take(&mut sections.cancellation, policy, policy.cancellation());
            take(&mut sections.retry, policy, policy.retry());
            let ends = sections.metadata.last().is_some_and(|ruling| ruling.mode == Mode::Off);
            if let Some((mode, rule)) = policy.metadata().filter(|_| !ends) {
                let mode = mode.unwrap_or(policy.mode());
                sections.metadata.push(Ruling {
                    policy,
                    mode,
                    rule,
                    further: None,
                });
            }
        }
        sections
    }

    /// Lets `further`, which is not enforced, make enforced sections stricter. Of several the strongest does, as it would
    /// otherwise win; one whose mode goes less far than the enforced section's does not.
    fn tighten(&mut self, policies: &'a PolicySet, further: &'a Policy) {
        let both = |enforced: &Policy| policies.stricter.get(enforced.name())?.get(further.name());
        let mode = |mode: Option<Mode>| mode.unwrap_or(further.mode());
        if let (Some(ruling), Some((own, _))) = (open(&mut self.failure), further.failure()) {
            ruling.further = Some(further);
            if let Some(stricter) = both(ruling.policy).and_then(|both| both.failure.as_ref())
                && mode(own) >= ruling.mode
            {
                (ruling.mode, ruling.rule) = (mode(own), stricter);
            }
        }
        // A retry that only one of them wants is none: the enforced mode stays.
        if let (Some(ruling), Some((own, _))) = (open(&mut self.retry), further.retry()) {
            ruling.further = Some(further);
            if let Some(stricter) = both(ruling.policy).and_then(|both| both.retry.as_ref())
                && mode(own) >= ruling.mode
            {
                ruling.rule = stricter;
            }
        }
    }
}

/// The section, if an enforced policy has it and no further one has made it stricter yet.
fn open<'s, 'a, T>(slot: &'s mut Option<Ruling<'a, T>>) -> Option<&'s mut Ruling<'a, T>> {
    slot.as_mut()
        .filter(|ruling| ruling.policy.is_enforced() && ruling.further.is_none())
}

fn take<'a, T>(slot: &mut Option<Ruling<'a, T>>, policy: &'a Policy, section: Option<(Option<Mode>, T)>) {
    if let (None, Some((mode, rule))) = (&slot, section) {
        let mode = mode.unwrap_or(policy.mode());
        *slot = Some(Ruling {
            policy,
            mode,
            rule,
            further: None,
        });
    }
}

/// A request together with the policies that speak for it.
#[derive(Clone, Debug)]
pub struct Governed<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) facts: &'a Facts<'a>,
    pub(crate) task: Option<Task<'a>>,
    pub(crate) sections: Sections<'a>,
    pub(crate) metadata: Vec<Finding<'a>>,
    /// Why the policy's `itemKey` gives nothing.
    pub(crate) item_key_error: Option<String>,
    /// Whether the identity comes from the policy's `itemKey`.
    pub(crate) key_was_rendered: bool,
    /// The work that templates may still take.
    pub(crate) budget: Budget,
    item: Option<ItemIdentity>,
}

impl Governed<'_> {
    /// The work item whose memory the decision needs, if it needs one.
    pub fn item(&self) -> Option<&ItemIdentity> {
        let ruling = self.sections.failure?;
        let limited = ruling.rule.max_retries_per_item > 0 || ruling.rule.backoff.is_some();
        let asked = match self.request.kind {
            Kind::Task => self.request.phase == Phase::Validating,
            Kind::Job => ruling.mode == Mode::Enforce,
            _ => false,
        };
        self.item.as_ref().filter(|_| limited && asked)
    }

    /// The work item that the Task belongs to, where the failure section looks after it.
    pub fn identity(&self) -> Option<&ItemIdentity> {
        self.item.as_ref()
    }

    /// Whether the verdict is going to be enforced, and so has to rest on consistent reads. Where it is only told, a cache
    /// will do.
    pub fn needs_fresh_memory(&self) -> bool {
        self.sections.failure.is_some_and(|ruling| ruling.mode == Mode::Enforce)
    }
}

/// Finds the policies that speak for `request`.
///
/// Only a CREATE of a Task or of a Task's Job is governed. An object that is being deleted never is: nothing may stand in
/// the way of cleanup (C12).
///
/// Labels that a policy sets can make another policy apply. Selection is therefore repeated with the labels that the
/// Task will have, until nothing new is set: otherwise a second pass over our own output would add to it.
pub fn govern<'a>(request: &'a Request<'a>, facts: &'a Facts<'a>) -> Governed<'a> {
    let mut governed = Governed {
        request,
        facts,
        task: None,
        sections: Sections::default(),
        metadata: Vec::new(),
        item_key_error: None,
        key_was_rendered: false,
        budget: Budget::default(),
        item: None,
    };
    let governable = request.operation == Operation::Create
        && !facts.policies.is_empty()
        && !taskgate_api::metadata::Metadata::of(request.object).is_terminating();
    let Some(task) = request.task(facts).filter(|_| governable) else {
        return governed;
    };
    let managed = facts.policies.managed(request.namespace);
    let mut planned = Planned::of(request.task_object(facts));
    let mut features = Features {
        namespace_labels: facts.namespace_labels,
        spawner: task.spawner(),
        spawner_labels: facts.spawner.map(|spawner| &spawner.labels),
        agent_type: task.agent_type(),
        labels: planned.selectable(&managed),
    };
    governed.sections = Sections::select(facts.policies, request.namespace, &features);
    if mutates_task(request) {
        let scope = scope(request, facts);
        let mut values = Values::new(scope, managed);
        let stage = Stage::Creation {
            trackable: metadata::is_trackable(&scope),
        };
        for _ in 0..MAX_ROUNDS {
            let rulings = &governed.sections.metadata;
            let found = metadata::findings(rulings, &mut values, &mut planned, stage);
            governed.metadata.retain(|finding| !finding.planned().is_empty());
            governed.metadata.extend(found);
            let labels = planned.selectable(&managed);
            if !facts.policies.selects_task_labels || features.labels == labels {
                break;
            }
            features.labels = labels;
            governed.sections = Sections::select(facts.policies, request.namespace, &features);
        }
        governed.budget = values.budget();
    }
    if let Some(ruling) = governed.sections.failure.filter(|ruling| ruling.mode != Mode::Off) {
        let planned: Vec<_> = governed.metadata.iter().flat_map(Finding::planned).cloned().collect();
        let item_key = ruling.policy.item_key();
        let found = find_item(&scope(request, facts), item_key, &planned, governed.budget);
        governed.key_was_rendered = found.rendered;
        governed.item_key_error = found.error;
        governed.item = found.item;
    }
    governed.task = Some(task);
    governed
}

/// What templates may know of the Task and its surroundings. Who makes a Job is Kelos, and nobody that matters.
pub(crate) fn scope<'a>(request: &Request<'a>, facts: &Facts<'a>) -> Scope<'a> {
    Scope {
        object: request.task_object(facts),
        namespace: request.namespace,
        namespace_labels: facts.namespace_labels,
        spawner: facts.spawner,
        workspace: facts.workspace.facts(),
        user: (request.kind == Kind::Task).then_some(request.user),
        tracked: None,
    }
}

fn mutates_task(request: &Request<'_>) -> bool {
    request.kind == Kind::Task && request.phase == Phase::Mutating
}
