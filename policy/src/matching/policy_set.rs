//! All policies of a cluster, sorted by precedence.

use std::{cmp::Ordering, collections::HashMap};

use taskgate_api::task_policy::{FailurePolicy, RetryPolicy};

use super::{MAX_POLICIES, Policy, PolicyName, stricter};
use crate::template::{Keys, Managed};

/// Every policy of a cluster, in order of precedence.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    cluster: Vec<Policy>,
    namespaced: HashMap<String, Vec<Policy>>,
    pub(crate) selects_task_labels: bool,
    follows_sources: bool,
    queues: bool,
    cluster_keys: Keys,
    namespaced_keys: HashMap<String, Keys>,
    /// The sections that an enforced policy (first key) and a further one (second key) give together, where the further one is
    /// stricter.
    pub(super) stricter: HashMap<PolicyName, HashMap<PolicyName, Stricter>>,
}

/// The sections of an enforced policy, made stricter by a further one.
#[derive(Clone, Debug)]
pub(super) struct Stricter {
    pub(super) failure: Option<FailurePolicy>,
    pub(super) retry: Option<RetryPolicy>,
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
                        rule.add_keys(&mut set.cluster_keys);
                    }
                    set.cluster.push(policy);
                }
                PolicyName::Namespaced { namespace, .. } => {
                    let keys = set.namespaced_keys.entry(namespace.clone()).or_default();
                    if let Some(rule) = metadata {
                        rule.add_keys(keys);
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

    /// Whether any policy reads issue sources.
    pub fn follows_sources(&self) -> bool {
        self.follows_sources
    }

    /// Whether any policy puts Jobs into queues.
    pub fn queues(&self) -> bool {
        self.queues
    }

    /// The keys that the policies of `namespace` set.
    pub(crate) fn managed(&self, namespace: &str) -> Managed<'_> {
        Managed {
            cluster: &self.cluster_keys,
            namespaced: self.namespaced_keys.get(namespace),
        }
    }

    /// The policies that apply to `namespace`, strongest first: a merge of two sorted lists.
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
