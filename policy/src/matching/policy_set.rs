//! All policies of a cluster, sorted by precedence.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use taskgate_api::task_policy::{Backoff, FailurePolicy, RetryPolicy};

use super::{Policy, PolicyName};
use crate::{
    kubernetes::Problem,
    template::{Keys, Managed},
};

/// Every policy of a cluster, in order of precedence.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    cluster: PolicyGroup,
    namespaced: HashMap<String, PolicyGroup>,
    /// The policy fields of TaskSpawners, by namespace and name.
    spawners: HashMap<String, HashMap<String, Policy>>,
    pub(crate) selects_task_labels: bool,
    follows_sources: bool,
    queues: bool,
    /// The sections that an enforced policy (first key) and a further one (second key) give together, where the further one is
    /// stricter.
    pub(super) stricter: HashMap<PolicyName, HashMap<PolicyName, Stricter>>,
}

/// The ClusterTaskPolicies, or the TaskPolicies of one namespace.
#[derive(Clone, Debug, Default)]
struct PolicyGroup {
    /// In order of precedence.
    policies: Vec<Policy>,
    /// The labels and annotations that they set.
    keys: Keys,
}

/// The sections of an enforced policy, as far as a further one makes them stricter, which is all that it may do.
///
/// | Field | The stricter one |
/// |---|---|
/// | a number that limits | the smaller; 0 is no limit where the field allows that |
/// | a wait: `resetAfter`, `backoff` | the longer; one that the further policy does not have changes nothing |
/// | `ignore` | what both ignore |
/// | anything else | the enforced one |
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
            failure: failures.map(|(enforced, further)| stricter_failure(enforced.rule, further.rule)),
            retry: retries.map(|(enforced, further)| stricter_retry(enforced.rule, further.rule)),
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
            let group = match policy.name() {
                PolicyName::Spawner { namespace, name } => {
                    let (namespace, name) = (namespace.clone(), name.clone());
                    set.spawners.entry(namespace).or_default().insert(name, policy);
                    continue;
                }
                PolicyName::Cluster { .. } => &mut set.cluster,
                PolicyName::Namespaced { namespace, .. } => set.namespaced.entry(namespace.clone()).or_default(),
            };
            if let Some(section) = policy.metadata() {
                section.rule.add_keys(&mut group.keys);
            }
            group.policies.push(policy);
        }
        for group in set.namespaced.values_mut().chain([&mut set.cluster]) {
            group.policies.sort_by(|a, b| a.rank().cmp(&b.rank()));
        }
        set.stricter = set.stricter();
        set
    }

    fn stricter(&self) -> HashMap<PolicyName, HashMap<PolicyName, Stricter>> {
        let (enforced, others): (Vec<_>, Vec<_>) =
            self.cluster.policies.iter().partition(|policy| policy.is_enforced());
        let further = || {
            let namespaced = self.namespaced.values().flat_map(|group| &group.policies);
            let spawners = self.spawners.values().flat_map(HashMap::values);
            others.iter().copied().chain(namespaced).chain(spawners)
        };
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
        let groups = self.namespaced.values().chain([&self.cluster]);
        let policies: usize = groups.map(|group| group.policies.len()).sum();
        policies + self.spawners.values().map(HashMap::len).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there may be one more policy of this name's kind, or `name` is there already.
    pub(crate) fn has_room_for(&self, name: &PolicyName) -> bool {
        let group = match name {
            // There is one for each TaskSpawner.
            PolicyName::Spawner { .. } => None,
            PolicyName::Namespaced { namespace, .. } => self.namespaced.get(namespace),
            PolicyName::Cluster { .. } => Some(&self.cluster),
        };
        let is_there = |group: &PolicyGroup| group.policies.iter().any(|policy| policy.name() == name);
        group.is_none_or(|group| group.policies.len() < MAX_POLICIES || is_there(group))
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
            cluster: &self.cluster.keys,
            namespaced: self.namespaced.get(namespace).map(|group| &group.keys),
        }
    }

    /// The policies that apply to Tasks of `spawner` in `namespace`, strongest first: the enforced ones, the fields of the spawner
    /// itself, and a merge of two sorted lists.
    pub(crate) fn ranked<'a>(&'a self, namespace: &str, spawner: Option<&str>) -> impl Iterator<Item = &'a Policy> {
        let enforced = self.cluster.policies.partition_point(Policy::is_enforced);
        let (enforced, cluster) = self.cluster.policies.split_at(enforced);
        let of_spawner = spawner.and_then(|spawner| self.spawners.get(namespace)?.get(spawner));
        let local = self.namespaced.get(namespace).into_iter();
        let mut local = local.flat_map(|group| &group.policies).peekable();
        let mut cluster = cluster.iter().peekable();
        let merged = std::iter::from_fn(move || match (local.peek(), cluster.peek()) {
            (Some(a), Some(b)) if a.rank().cmp(&b.rank()) == Ordering::Greater => cluster.next(),
            (Some(_), _) => local.next(),
            (None, _) => cluster.next(),
        });
        enforced.iter().chain(of_spawner).chain(merged)
    }
}

/// How many `TaskPolicies` a namespace may have, and how many `ClusterTaskPolicies` there may be.
pub const MAX_POLICIES: usize = 64;

/// The stored policies at one moment, as one value that all parts of the process share: those in force are compiled once.
#[derive(Clone, Debug, Default)]
pub struct KnownPolicies {
    /// Those in force.
    pub set: Arc<PolicySet>,
    /// All of them.
    pub states: BTreeMap<PolicyName, PolicyState>,
    /// Whether these are all that are stored: false until both kinds, and the TaskSpawners, were listed.
    pub complete: bool,
}

/// One stored policy, or the policy fields of one TaskSpawner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyState {
    /// The object's uid.
    pub uid: String,
    /// The generation that was compiled. One of a TaskSpawner that changes other fields only is not compiled again.
    pub generation: i64,
    /// Whether it is in force.
    pub acceptance: Acceptance,
}

/// Whether a stored policy is in force. What is in force follows from what is stored, not from when this process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is.
    InForce,
    /// It cannot be applied; also when an earlier generation of it could be.
    Invalid(Arc<[Problem]>),
    /// There are too many: the oldest ones are in force.
    TooMany,
}

/// The failure section `enforced`, as far as `further` makes it stricter.
fn stricter_failure(enforced: &FailurePolicy, further: &FailurePolicy) -> FailurePolicy {
    let backoff = match (&enforced.backoff, &further.backoff) {
        (Some(one), Some(other)) => Some(slower(one, other)),
        (one, other) => one.clone().or_else(|| other.clone()),
    };
    let reset_after = match (&enforced.reset_after, &further.reset_after) {
        (Some(one), Some(other)) => Some(*one.max(other)),
        (one, _) => *one,
    };
    let ignore = match (&enforced.ignore, &further.ignore) {
        (Some(one), Some(other)) => {
            let other: BTreeSet<_> = other.iter().collect();
            Some(one.iter().copied().filter(|failure| other.contains(failure)).collect())
        }
        (one, other) => one.clone().or_else(|| other.clone()),
    };
    FailurePolicy {
        max_retries_per_item: limit(enforced.max_retries_per_item, further.max_retries_per_item),
        max_infrastructure_failures: limit(
            enforced.max_infrastructure_failures,
            further.max_infrastructure_failures,
        ),
        reset_after,
        backoff,
        ignore,
        ..enforced.clone()
    }
}

/// The retry section `enforced`, as far as `further` makes it stricter.
fn stricter_retry(enforced: &RetryPolicy, further: &RetryPolicy) -> RetryPolicy {
    let backoff = match &further.backoff {
        Some(further) => Some(slower(&enforced.backoff(), further)),
        None => enforced.backoff.clone(),
    };
    RetryPolicy {
        max_attempts: enforced.max_attempts.min(further.max_attempts),
        // 0 is the strictest here: such failures are never retried.
        max_infrastructure_failures: enforced
            .max_infrastructure_failures
            .min(further.max_infrastructure_failures),
        max_in_flight: enforced.max_in_flight.min(further.max_in_flight),
        max_in_flight_per_namespace: enforced
            .max_in_flight_per_namespace
            .min(further.max_in_flight_per_namespace),
        backoff,
        ..enforced.clone()
    }
}

/// The smaller of two limits, of which 0 is none.
fn limit(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, limit) | (limit, 0) => limit,
        (one, other) => one.min(other),
    }
}

fn slower(one: &Backoff, other: &Backoff) -> Backoff {
    Backoff {
        initial: one.initial.max(other.initial),
        factor: one.factor.max(other.factor),
        max: one.max.max(other.max),
    }
}

#[cfg(test)]
mod stricter_tests {
    use serde_json::{Value, json};

    use super::*;

    fn both(enforced: Value, further: Value) -> Value {
        let read = |spec| serde_json::from_value(spec).unwrap();
        json!(stricter_failure(&read(enforced), &read(further)))
    }

    #[test]
    fn each_field_goes_its_way() {
        let max = "maxRetriesPerItem";
        for (enforced, further, limit) in [(3, 5, 3), (3, 2, 2), (3, 0, 3), (0, 2, 2), (0, 0, 0)] {
            assert_eq!(
                both(json!({max: enforced}), json!({max: further}))[max],
                limit,
                "{enforced} {further}"
            );
        }
        let max = "maxInfrastructureFailures";
        for (enforced, further, limit) in [(3, 5, 3), (3, 0, 3), (0, 2, 2)] {
            assert_eq!(
                both(json!({max: enforced}), json!({max: further}))[max],
                limit,
                "{enforced} {further}"
            );
        }
        for (enforced, further, after) in [
            (json!("60s"), json!("120s"), json!("120s")),
            (json!("120s"), json!("60s"), json!("120s")),
            (json!("60s"), Value::Null, json!("60s")),
            (Value::Null, json!("60s"), Value::Null),
        ] {
            let found = both(json!({"resetAfter": enforced}), json!({"resetAfter": further}));
            assert_eq!(found["resetAfter"], after, "{enforced} {further}");
        }
        let backoff = |initial: &str, max: &str| json!({"backoff": {"initial": initial, "factor": 2, "max": max}});
        let found = both(backoff("60s", "600s"), backoff("120s", "300s"));
        assert_eq!(found["backoff"], backoff("120s", "600s")["backoff"]);
        assert_eq!(
            both(json!({}), backoff("120s", "300s"))["backoff"],
            backoff("120s", "300s")["backoff"]
        );
        let ignored = |ignore: Value| {
            both(json!({"ignore": ["Evicted", "NodeLost"]}), json!({"ignore": ignore}))["ignore"].clone()
        };
        assert_eq!(ignored(json!(["NodeLost", "ImagePull"])), json!(["NodeLost"]));
        assert_eq!(ignored(Value::Null), json!(["Evicted", "NodeLost"]));
        assert_eq!(both(json!({}), json!({"ignore": []}))["ignore"], json!([]));
        let found = both(
            json!({"itemKey": "a", "resetOnChange": false}),
            json!({"itemKey": "b", "resetOnChange": true}),
        );
        assert_eq!(
            (&found["itemKey"], &found["resetOnChange"]),
            (&json!("a"), &json!(false))
        );
    }

    #[test]
    fn retries_become_fewer_and_later() {
        let read = |spec: Value| serde_json::from_value::<RetryPolicy>(spec).unwrap();
        let found = stricter_retry(
            &read(
                json!({"maxAttempts": 3, "maxInfrastructureFailures": 2, "maxInFlight": 5, "overrides": {"task": {"model": "a"}}}),
            ),
            &read(json!({
                "maxAttempts": 9, "maxInfrastructureFailures": 0, "maxInFlight": 2, "overrides": {"task": {"model": "b"}},
                "backoff": {"initial": "1s", "factor": 3, "max": "1h"},
            })),
        );
        assert_eq!(
            (
                found.max_attempts,
                found.max_infrastructure_failures,
                found.max_in_flight
            ),
            (3, 0, 2)
        );
        assert_eq!(json!(found.overrides), json!({"task": {"model": "a"}}));
        assert_eq!(
            json!(found.backoff),
            json!({"initial": "5s", "factor": 3, "max": "3600s"})
        );
    }
}
