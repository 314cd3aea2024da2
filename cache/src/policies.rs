//! The store of policies of both kinds, compiled once as they arrive, for the whole process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use kube::api::DynamicObject;
use taskgate_api::task_policy::PolicyStatus;
use taskgate_policy::{Acceptance, KnownPolicies, MAX_POLICIES, Policy, PolicyName, PolicySet, PolicyState, Problem};
use tokio::sync::watch;
use tracing::warn;

use crate::{
    block_in_place,
    store::{NamespacedName, ObjectChange, ObjectMap, Store},
};

/// The policies of both kinds, and the set that subscribers see.
#[derive(Debug)]
pub(super) struct PolicyStore {
    pub(super) namespaced: Store<StoredPolicy>,
    pub(super) cluster: Store<StoredPolicy>,
    known: watch::Sender<Arc<KnownPolicies>>,
    /// Locked while `known` is built from the stores, so that the last one built is the newest.
    rebuilding: Mutex<()>,
}

/// A policy as it is stored in the cluster: compiled, with its status.
#[derive(Clone, Debug)]
pub struct StoredPolicy {
    name: PolicyName,
    uid: String,
    generation: i64,
    created: Option<Timestamp>,
    status: Option<PolicyStatus>,
    compiled: CompiledPolicy,
}

#[derive(Clone, Debug)]
enum CompiledPolicy {
    Usable(Policy),
    Invalid(Arc<[Problem]>),
    /// Over the limit, as one of the newest. It is not kept, so that no number of policies fills the memory; it is listed again
    /// when the count falls below the limit.
    Dropped,
}

/// What is compiled follows from the generation, and from the limit.
impl PartialEq for StoredPolicy {
    fn eq(&self, other: &Self) -> bool {
        (&self.uid, self.generation, &self.status) == (&other.uid, other.generation, &other.status)
            && self.is_dropped() == other.is_dropped()
    }
}

impl StoredPolicy {
    /// Which object it is.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// The generation of the object.
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// The status of the object.
    pub fn status(&self) -> Option<&PolicyStatus> {
        self.status.as_ref()
    }

    /// Its templates that may not suit every Task.
    pub fn doubts(&self) -> &[Problem] {
        match &self.compiled {
            CompiledPolicy::Usable(policy) => policy.doubts(),
            CompiledPolicy::Invalid(_) | CompiledPolicy::Dropped => &[],
        }
    }

    /// Whether it is in force.
    pub fn acceptance(&self) -> Acceptance {
        match &self.compiled {
            CompiledPolicy::Usable(_) => Acceptance::InForce,
            CompiledPolicy::Invalid(problems) => Acceptance::Invalid(Arc::clone(problems)),
            CompiledPolicy::Dropped => Acceptance::TooMany,
        }
    }

    fn is_dropped(&self) -> bool {
        matches!(self.compiled, CompiledPolicy::Dropped)
    }

    fn state(&self) -> PolicyState {
        PolicyState {
            uid: self.uid.clone(),
            generation: self.generation,
            acceptance: self.acceptance(),
        }
    }
}

/// Drops the newest policies in the namespace of `key`, while there are more than the limit.
fn drop_newest(stored: &mut ObjectMap<StoredPolicy>, key: &NamespacedName) -> Vec<ObjectChange<StoredPolicy>> {
    let members = stored
        .range_mut(NamespacedName::new(&key.namespace, "")..)
        .take_while(|(other, _)| other.namespace == key.namespace);
    let mut kept: Vec<_> = members.filter(|(_, stored)| !stored.is_dropped()).collect();
    if kept.len() <= MAX_POLICIES {
        return Vec::new();
    }
    kept.sort_by(|(_, a), (_, b)| (a.created, &a.name).cmp(&(b.created, &b.name)));
    let newest = kept.into_iter().skip(MAX_POLICIES);
    let drop = |(key, stored): (&NamespacedName, &mut Arc<StoredPolicy>)| {
        let dropped = Arc::new(StoredPolicy {
            compiled: CompiledPolicy::Dropped,
            ..StoredPolicy::clone(stored)
        });
        ObjectChange {
            key: key.clone(),
            old: Some(std::mem::replace(stored, Arc::clone(&dropped))),
            new: Some(dropped),
        }
    };
    newest.map(drop).collect()
}

/// Whether a dropped policy fits again.
fn dropped_fits_again(stored: &[Arc<StoredPolicy>]) -> bool {
    let mut groups: HashMap<_, (usize, bool)> = HashMap::new();
    for stored in stored {
        let namespace = match &stored.name {
            PolicyName::Namespaced { namespace, .. } => namespace.as_str(),
            PolicyName::Cluster { .. } => "",
        };
        let (kept, any_dropped) = groups.entry(namespace).or_default();
        *kept += usize::from(!stored.is_dropped());
        *any_dropped |= stored.is_dropped();
    }
    groups
        .values()
        .any(|(kept, any_dropped)| *any_dropped && *kept < MAX_POLICIES)
}

impl PolicyStore {
    pub(super) fn new() -> Self {
        Self {
            namespaced: Store::with_after_change("taskpolicies", drop_newest),
            cluster: Store::with_after_change("clustertaskpolicies", drop_newest),
            known: watch::Sender::default(),
            rebuilding: Mutex::default(),
        }
    }

    pub(super) fn known(&self) -> watch::Receiver<Arc<KnownPolicies>> {
        self.known.subscribe()
    }

    /// Publishes the current content to the next review and to subscribers, if it changed; whether to list again for a dropped
    /// policy.
    pub(super) fn rebuild(&self) -> bool {
        let _rebuilding = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let namespaced = self.namespaced.all();
        let cluster = self.cluster.all();
        let list_again = dropped_fits_again(&namespaced) || dropped_fits_again(&cluster);
        let stored = [namespaced, cluster].concat();
        let states = stored
            .iter()
            .map(|stored| (stored.name.clone(), stored.state()))
            .collect();
        let complete = self.namespaced.status().synced && self.cluster.status().synced;
        let known = self.known.borrow().clone();
        if known.states != states || known.complete != complete {
            let usable = stored.iter().filter_map(|stored| match &stored.compiled {
                CompiledPolicy::Usable(policy) => Some(policy.clone()),
                CompiledPolicy::Invalid(_) | CompiledPolicy::Dropped => None,
            });
            let set = Arc::new(PolicySet::new(usable));
            self.known
                .send_replace(Arc::new(KnownPolicies { set, states, complete }));
        }
        list_again
    }

    /// The number of stored policies that are not in force.
    pub(super) fn rejected(&self) -> usize {
        let known = self.known.borrow();
        let rejected = known
            .states
            .values()
            .filter(|state| state.acceptance != Acceptance::InForce);
        rejected.count()
    }

    /// Compiles a policy, unless its generation is compiled already.
    pub(super) fn compile(&self, object: DynamicObject) -> StoredPolicy {
        let DynamicObject { metadata, mut data, .. } = object;
        let namespace = metadata.namespace.unwrap_or_default();
        let name = metadata.name.unwrap_or_default();
        let uid = metadata.uid.unwrap_or_default();
        let generation = metadata.generation.unwrap_or_default();
        let status = serde_json::from_value(data["status"].take()).unwrap_or_default();
        let is_current =
            |before: &Arc<StoredPolicy>| before.uid == uid && before.generation == generation && !before.is_dropped();
        let store = if namespace.is_empty() {
            &self.cluster
        } else {
            &self.namespaced
        };
        if let Some(before) = store.get(&namespace, &name).filter(is_current) {
            return StoredPolicy {
                status,
                ..StoredPolicy::clone(&before)
            };
        }
        let name = if namespace.is_empty() {
            PolicyName::Cluster { name }
        } else {
            PolicyName::Namespaced { namespace, name }
        };
        let spec = data["spec"].take();
        let compiled = match block_in_place(|| Policy::of_spec(name.clone(), &spec)) {
            Ok(policy) => CompiledPolicy::Usable(policy),
            Err(problems) => {
                let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
                warn!(policy = %name, generation, ?fields, "skipping a policy that cannot be applied");
                CompiledPolicy::Invalid(problems.into())
            }
        };
        StoredPolicy {
            name,
            uid,
            generation,
            created: metadata.creation_timestamp.map(|created| created.0),
            status,
            compiled,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, generation: i64, created: usize, spec: &serde_json::Value) -> DynamicObject {
        let metadata = json!({
            "namespace": "team", "name": name, "uid": name, "generation": generation,
            "creationTimestamp": format!("2026-01-01T00:{:02}:{:02}Z", created / 60, created % 60),
        });
        let status = json!({"observedGeneration": created});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn key(name: &str) -> NamespacedName {
        NamespacedName::new("team", name)
    }

    fn apply(policies: &PolicyStore, object: DynamicObject) -> bool {
        let key = key(object.metadata.name.as_deref().unwrap_or_default());
        let stored = policies.compile(object);
        policies.namespaced.apply(key, Some(stored));
        policies.rebuild()
    }

    #[test]
    fn a_policy_that_becomes_invalid_is_skipped_until_it_is_repaired() {
        let policies = PolicyStore::new();
        let mut in_force = Vec::new();
        for (generation, spec) in [
            (1, json!({"queueName": "a"})),
            (2, json!({"queueName": "Not Legal"})),
            (3, json!({"mode": "Perhaps"})),
            (4, json!({"queueName": "b"})),
        ] {
            apply(&policies, object("p", generation, 0, &spec));
            in_force.push((policies.known().borrow().set.len(), policies.rejected()));
        }
        assert_eq!(in_force, [(1, 0), (0, 1), (0, 1), (1, 0)]);
    }

    #[test]
    fn a_change_of_the_status_compiles_nothing_and_notifies_no_subscriber() {
        let policies = PolicyStore::new();
        apply(&policies, object("p", 1, 0, &json!({"queueName": "a"})));
        let mut known = policies.known();
        // A generation never gets another spec: this one would be invalid.
        let mut again = object("p", 1, 0, &json!({"queueName": "Not Legal"}));
        again.data["status"] = json!({"observedGeneration": 1});
        apply(&policies, again);
        let stored = policies.namespaced.get("team", "p").unwrap();
        let observed = stored.status().and_then(|status| status.observed_generation);
        assert_eq!((stored.acceptance(), observed), (Acceptance::InForce, Some(1)));
        assert!(!known.has_changed().unwrap());
        apply(&policies, object("p", 2, 0, &json!({"queueName": "b"})));
        assert!(known.has_changed().unwrap());
        assert_eq!(known.borrow_and_update().states.values().next().unwrap().generation, 2);
        // Another policy of the same name.
        let mut other = object("p", 2, 0, &json!({"queueName": "c"}));
        other.metadata.uid = Some("other".to_owned());
        apply(&policies, other);
        assert!(known.has_changed().unwrap());
    }

    #[test]
    fn of_too_many_policies_the_oldest_are_in_force_and_only_those_are_kept() {
        let policies = PolicyStore::new();
        let spec = json!({"queueName": "a"});
        let count = MAX_POLICIES + 10;
        // In the order of their names, the newest first.
        policies.namespaced.begin();
        for index in 0..count {
            let name = format!("p{index:03}");
            let stored = policies.compile(object(&name, 1, count - index, &spec));
            policies.namespaced.stage(&key(&name), Some(stored));
        }
        policies.namespaced.commit();
        assert!(!policies.rebuild());
        let state = |name: &str| {
            let name = PolicyName::Namespaced {
                namespace: "team".into(),
                name: name.into(),
            };
            policies.known().borrow().states[&name].acceptance.clone()
        };
        assert_eq!(policies.known().borrow().set.len(), MAX_POLICIES);
        assert_eq!(
            (state("p009"), state("p010")),
            (Acceptance::TooMany, Acceptance::InForce)
        );
        // Of the oldest that arrives last, the subscribers learn what it supersedes.
        let mut subscription = policies.namespaced.subscribe();
        subscription.try_next();
        apply(&policies, object("o", 1, 0, &spec));
        let changed: Vec<_> = subscription
            .try_next()
            .unwrap()
            .into_iter()
            .map(|change| (change.key.name, change.new))
            .collect();
        assert_eq!(changed.len(), 2);
        assert_eq!((changed[0].0.as_str(), changed[1].0.as_str()), ("o", "p010"));
        assert_eq!(
            changed[1].1.as_ref().map(|policy| policy.acceptance()),
            Some(Acceptance::TooMany)
        );
        policies.namespaced.remove(key("o"));
        assert!(policies.rebuild());
        apply(&policies, object("p010", 1, count - 10, &spec));
        // A new one is over the limit, also when it arrives last.
        assert!(!apply(&policies, object("q", 1, count + 1, &spec)));
        assert_eq!(state("q"), Acceptance::TooMany);
        // One is deleted: the dropped ones have to be listed again.
        policies.namespaced.remove(key("p050"));
        assert!(policies.rebuild());
        assert!(!apply(&policies, object("p009", 1, count - 9, &spec)));
        assert_eq!(
            (state("p008"), state("p009")),
            (Acceptance::TooMany, Acceptance::InForce)
        );
    }
}
