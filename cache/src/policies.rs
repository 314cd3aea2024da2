//! The store of policies of both kinds, and of TaskSpawners with their policy fields: compiled once as they arrive, for the whole
//! process.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use kube::api::DynamicObject;
use taskgate_api::{
    kelos_fields::{InvalidField, KelosFields, SpawnerFields},
    task_policy::PolicyStatus,
};
use taskgate_policy::{Acceptance, KnownPolicies, MAX_POLICIES, Policy, PolicyName, PolicySet, PolicyState, Problem};
use tokio::sync::watch;
use tracing::warn;

use crate::{
    block_in_place,
    store::{NamespacedName, ObjectChange, ObjectMap, Observer, Store},
    trim::{self, CachedSpawner},
};

/// The policies of both kinds, the TaskSpawners, and the set that subscribers see.
#[derive(Debug)]
pub(super) struct PolicyStore {
    pub(super) namespaced: Store<StoredPolicy>,
    pub(super) cluster: Store<StoredPolicy>,
    pub(super) spawners: Store<CachedSpawner>,
    spawner_policies: Arc<SpawnerPolicyChanges>,
    /// The fields of Kelos' kinds that were taskgate's at the last change of a TaskSpawner.
    kelos_fields: Mutex<KelosFields>,
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

/// The policy fields of a TaskSpawner, compiled.
#[derive(Clone, Debug)]
pub struct SpawnerPolicy {
    fields: Result<SpawnerFields, InvalidField>,
    state: PolicyState,
    /// `None`: it cannot be applied.
    policy: Option<Policy>,
}

/// The compiled policy follows from the fields.
impl PartialEq for SpawnerPolicy {
    fn eq(&self, other: &Self) -> bool {
        (&self.state.uid, &self.fields) == (&other.state.uid, &other.fields)
    }
}

impl SpawnerPolicy {
    /// Whether the fields are in force, and if not, what is wrong with them.
    pub fn acceptance(&self) -> &Acceptance {
        &self.state.acceptance
    }
}

/// Whether the policy fields of a TaskSpawner changed since the set was built. A spawner's status changes with each of its cycles,
/// and then the set is not built again.
#[derive(Debug, Default)]
struct SpawnerPolicyChanges(AtomicBool);

impl Observer<CachedSpawner> for SpawnerPolicyChanges {
    fn changed(&self, changes: &[ObjectChange<CachedSpawner>]) {
        let policy = |spawner: &Option<Arc<CachedSpawner>>| spawner.as_ref().and_then(|spawner| spawner.policy.clone());
        if changes.iter().any(|change| policy(&change.old) != policy(&change.new)) {
            self.0.store(true, Ordering::Release);
        }
    }
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
        let namespace = stored.name.namespace().unwrap_or_default();
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
        let spawner_policies = Arc::<SpawnerPolicyChanges>::default();
        let observer: Arc<dyn Observer<CachedSpawner>> = Arc::clone(&spawner_policies) as _;
        Self {
            namespaced: Store::with_after_change("taskpolicies", drop_newest),
            cluster: Store::with_after_change("clustertaskpolicies", drop_newest),
            spawners: Store::new("taskspawners").observed_by(observer),
            spawner_policies,
            kelos_fields: Mutex::default(),
            known: watch::Sender::default(),
            rebuilding: Mutex::default(),
        }
    }

    pub(super) fn known(&self) -> watch::Receiver<Arc<KnownPolicies>> {
        self.known.subscribe()
    }

    /// Publishes the current content after a change of a TaskSpawner, if the policies may differ; whether to list TaskSpawners again,
    /// as other `fields` are taskgate's by now. (A change of Kelos' schema ends the watch anyway.)
    pub(super) fn rebuild_for_spawners(&self, fields: KelosFields) -> bool {
        let is_complete = self.known.borrow().complete;
        if !is_complete || self.spawner_policies.0.load(Ordering::Acquire) {
            self.rebuild();
        }
        let mut known = self.kelos_fields.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = *known != fields;
        *known = fields;
        differs
    }

    /// Publishes the current content to the next review and to subscribers, if it changed; whether to list again for a dropped
    /// policy.
    pub(super) fn rebuild(&self) -> bool {
        let _rebuilding = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let spawners_changed = self.spawner_policies.0.swap(false, Ordering::AcqRel);
        let of_spawners: Vec<_> = self
            .spawners
            .all()
            .iter()
            .filter_map(|spawner| {
                let policy = spawner.policy.clone()?;
                Some((spawner_policy_name(&spawner.object), policy))
            })
            .collect();
        let namespaced = self.namespaced.all();
        let cluster = self.cluster.all();
        let list_again = dropped_fits_again(&namespaced) || dropped_fits_again(&cluster);
        let stored = [namespaced, cluster].concat();
        let states = stored
            .iter()
            .map(|stored| (stored.name.clone(), stored.state()))
            .chain(
                of_spawners
                    .iter()
                    .map(|(name, spawner)| (name.clone(), spawner.state.clone())),
            )
            .collect();
        let complete = self.namespaced.status().synced && self.cluster.status().synced && self.spawners.status().synced;
        let known = self.known.borrow().clone();
        if known.states != states || known.complete != complete || spawners_changed {
            let usable = stored.iter().filter_map(|stored| match &stored.compiled {
                CompiledPolicy::Usable(policy) => Some(policy.clone()),
                CompiledPolicy::Invalid(_) | CompiledPolicy::Dropped => None,
            });
            let of_spawners = of_spawners.iter().filter_map(|(_, spawner)| spawner.policy.clone());
            let set = Arc::new(PolicySet::new(usable.chain(of_spawners)));
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

    /// Trims a TaskSpawner, and compiles its policy fields, of which `ours` are taskgate's, unless the same ones are compiled already.
    pub(super) fn compile_spawner(&self, object: DynamicObject, ours: &KelosFields) -> CachedSpawner {
        let policy = self.compile_fields(&object, ours);
        trim::spawner(object, policy)
    }

    fn compile_fields(&self, object: &DynamicObject, ours: &KelosFields) -> Option<Arc<SpawnerPolicy>> {
        let fields = SpawnerFields::read(&trim::json(object), ours);
        let key = NamespacedName::of(object);
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let before = self.spawners.get(&key.namespace, &key.name);
        let is_same = |before: &Arc<SpawnerPolicy>| before.state.uid == uid && before.fields == fields;
        if let Some(before) = before.and_then(|spawner| spawner.policy.clone()).filter(is_same) {
            return Some(before);
        }
        let generation = object.metadata.generation.unwrap_or_default();
        let (policy, acceptance) = match block_in_place(|| Policy::of_spawner(&key.namespace, &key.name, &fields))? {
            Ok(policy) => (Some(policy), Acceptance::InForce),
            Err(problems) => {
                let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
                let (namespace, name) = (key.namespace, key.name);
                warn!(
                    namespace,
                    name,
                    generation,
                    ?fields,
                    "skipping the policy fields of a TaskSpawner that cannot be applied"
                );
                (None, Acceptance::Invalid(problems.into()))
            }
        };
        let state = PolicyState {
            uid,
            generation,
            acceptance,
        };
        Some(Arc::new(SpawnerPolicy { fields, state, policy }))
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

fn spawner_policy_name(spawner: &DynamicObject) -> PolicyName {
    let NamespacedName { namespace, name } = NamespacedName::of(spawner);
    PolicyName::Spawner { namespace, name }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use taskgate_api::kelos_fields::KelosField;

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

    fn spawner(version: &str, spec: &serde_json::Value) -> DynamicObject {
        let metadata =
            json!({"namespace": "team", "name": "fixer", "uid": "u", "generation": 1, "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": {"totalDiscovered": version}}))
            .unwrap()
    }

    #[test]
    fn the_fields_of_a_spawner_are_a_policy_and_its_status_notifies_no_subscriber() {
        let policies = PolicyStore::new();
        let apply = |object| {
            let ours = KelosField::all();
            policies
                .spawners
                .apply(key("fixer"), Some(policies.compile_spawner(object, &ours)));
            policies.rebuild_for_spawners(ours);
        };
        policies.spawners.begin();
        policies.spawners.commit();
        for store in [&policies.namespaced, &policies.cluster] {
            store.begin();
            store.commit();
        }
        policies.rebuild();
        let mut known = policies.known();
        assert!(known.borrow_and_update().complete);
        let in_force = || (policies.known().borrow().set.len(), policies.rejected());

        let spec = json!({"failurePolicy": {"maxRetriesPerItem": 3}, "when": {"githubIssues": {}}});
        apply(spawner("1", &spec));
        assert_eq!((in_force(), known.has_changed().unwrap()), ((1, 0), true));
        known.mark_unchanged();
        let compiled = policies.spawners.get("team", "fixer").unwrap().policy.clone().unwrap();
        // A cycle of the spawner, and a change of another field.
        apply(spawner(
            "2",
            &json!({"failurePolicy": {"maxRetriesPerItem": 3}, "suspend": true}),
        ));
        assert!(!known.has_changed().unwrap());
        let again = policies.spawners.get("team", "fixer").unwrap().policy.clone().unwrap();
        assert!(Arc::ptr_eq(&compiled, &again), "it is compiled once");
        // Other fields, also of the same generation.
        apply(spawner("3", &json!({"failurePolicy": {"maxRetriesPerItem": 4}})));
        assert_eq!((in_force(), known.has_changed().unwrap()), ((1, 0), true));
        apply(spawner("4", &json!({"failurePolicy": "three"})));
        assert_eq!(in_force(), (0, 1));
        apply(spawner("5", &json!({})));
        assert_eq!(in_force(), (0, 0));
        apply(spawner("6", &spec));
        assert_eq!(in_force(), (1, 0));
        policies.spawners.remove(key("fixer"));
        assert!(!policies.rebuild_for_spawners(KelosField::all()));
        assert!(policies.rebuild_for_spawners(KelosFields::new()), "they are read anew");
        assert_eq!(in_force(), (0, 0));
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
