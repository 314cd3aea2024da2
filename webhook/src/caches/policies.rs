//! Policies, compiled once as they arrive, for the whole process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde::de::DeserializeOwned;
use taskgate_api::{ClusterTaskPolicySpec, TaskPolicySpec};
use taskgate_policy::{
    Acceptance, KnownPolicies, MAX_POLICIES, Policy, PolicyName, PolicySet, PolicyState, Problem, clip,
};
use tokio::sync::watch;
use tracing::warn;

use super::table::Table;
use crate::off_reactor::off_reactor;

/// The policies of both kinds, and what others know of them.
#[derive(Debug)]
pub(super) struct Policies {
    pub(super) namespaced: Table<Arc<Stored>>,
    pub(super) cluster: Table<Arc<Stored>>,
    known: watch::Sender<Arc<KnownPolicies>>,
    /// Held while `known` is made of the tables, so that the last one made is the newest.
    rebuilding: Mutex<()>,
}

/// A policy as it is stored in the cluster.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    name: PolicyName,
    uid: String,
    generation: i64,
    created: Option<Timestamp>,
    compiled: Compiled,
}

#[derive(Clone, Debug)]
enum Compiled {
    Usable(Policy),
    Invalid(Arc<[Problem]>),
    /// Older ones take all the room. It is not kept, so that no number of policies fills the memory; when there is room again,
    /// it is listed again.
    Dropped,
}

impl Stored {
    fn is_dropped(&self) -> bool {
        matches!(self.compiled, Compiled::Dropped)
    }

    fn state(&self) -> PolicyState {
        PolicyState {
            uid: self.uid.clone(),
            generation: self.generation,
            acceptance: match &self.compiled {
                Compiled::Usable(_) => Acceptance::InForce,
                Compiled::Invalid(problems) => Acceptance::Invalid(Arc::clone(problems)),
                Compiled::Dropped => Acceptance::TooMany,
            },
        }
    }
}

/// Drops the newest of the policies beside the one under `key`, as long as there are too many.
fn drop_newest(stored: &mut BTreeMap<String, Arc<Stored>>, key: &str) {
    let group = &key[..=key.find('/').unwrap_or(key.len() - 1)];
    let members = stored
        .range_mut(group.to_owned()..)
        .take_while(|(key, _)| key.starts_with(group));
    let mut kept: Vec<_> = members
        .map(|(_, stored)| stored)
        .filter(|stored| !stored.is_dropped())
        .collect();
    if kept.len() <= MAX_POLICIES {
        return;
    }
    kept.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    for newest in kept.into_iter().skip(MAX_POLICIES) {
        *newest = Arc::new(Stored {
            compiled: Compiled::Dropped,
            ..Stored::clone(newest)
        });
    }
}

/// Whether there is room for one that was dropped.
fn has_room_for_dropped(stored: &[Arc<Stored>]) -> bool {
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

impl Policies {
    pub(super) fn new() -> Self {
        Self {
            namespaced: Table::settled("taskpolicies", drop_newest),
            cluster: Table::settled("clustertaskpolicies", drop_newest),
            known: watch::Sender::default(),
            rebuilding: Mutex::default(),
        }
    }

    pub(super) fn known(&self) -> watch::Receiver<Arc<KnownPolicies>> {
        self.known.subscribe()
    }

    /// Puts what the tables hold now before the next review, and tells the others if it is news. Whether one that was dropped
    /// has to be listed again.
    pub(super) fn rebuild(&self) -> bool {
        let _rebuilding = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let namespaced = self.namespaced.values();
        let cluster = self.cluster.values();
        let again = has_room_for_dropped(&namespaced) || has_room_for_dropped(&cluster);
        let stored = [namespaced, cluster].concat();
        let states = stored
            .iter()
            .map(|stored| (stored.name.clone(), stored.state()))
            .collect();
        let complete = self.namespaced.report().synced && self.cluster.report().synced;
        let known = self.known.borrow().clone();
        if known.states != states || known.complete != complete {
            let usable = stored.iter().filter_map(|stored| match &stored.compiled {
                Compiled::Usable(policy) => Some(policy.clone()),
                Compiled::Invalid(_) | Compiled::Dropped => None,
            });
            let set = Arc::new(PolicySet::new(usable));
            self.known
                .send_replace(Arc::new(KnownPolicies { set, states, complete }));
        }
        again
    }

    /// How many stored policies are not in force.
    pub(super) fn rejected(&self) -> usize {
        let known = self.known.borrow();
        let rejected = known
            .states
            .values()
            .filter(|state| state.acceptance != Acceptance::InForce);
        rejected.count()
    }

    pub(super) fn compile_namespaced(&self, object: DynamicObject) -> Arc<Stored> {
        let compile = |name: &PolicyName, spec: TaskPolicySpec| match name {
            PolicyName::Namespaced { namespace, name } => Policy::namespaced(namespace, name, &spec),
            PolicyName::Cluster { name } => Policy::namespaced("", name, &spec),
        };
        stored(&self.namespaced, object, compile)
    }

    pub(super) fn compile_cluster(&self, object: DynamicObject) -> Arc<Stored> {
        let compile = |name: &PolicyName, spec: ClusterTaskPolicySpec| match name {
            PolicyName::Namespaced { name, .. } | PolicyName::Cluster { name } => Policy::cluster(name, &spec),
        };
        stored(&self.cluster, object, compile)
    }
}

/// Compiles one object, unless its spec is the one that is compiled already.
fn stored<S: DeserializeOwned>(
    table: &Table<Arc<Stored>>,
    object: DynamicObject,
    compile: impl Fn(&PolicyName, S) -> Result<Policy, Vec<Problem>>,
) -> Arc<Stored> {
    let DynamicObject { metadata, mut data, .. } = object;
    let namespace = metadata.namespace.unwrap_or_default();
    let name = metadata.name.unwrap_or_default();
    let uid = metadata.uid.unwrap_or_default();
    let generation = metadata.generation.unwrap_or_default();
    let is_current =
        |before: &Arc<Stored>| before.uid == uid && before.generation == generation && !before.is_dropped();
    if let Some(before) = table.get(&namespace, &name).filter(is_current) {
        return before;
    }
    let name = if namespace.is_empty() {
        PolicyName::Cluster { name }
    } else {
        PolicyName::Namespaced { namespace, name }
    };
    let compiled = off_reactor(|| {
        let unreadable = |error: serde_json::Error| {
            let message = clip(&error.to_string(), 160);
            vec![Problem {
                field: "spec".to_owned(),
                message,
            }]
        };
        let spec = serde_json::from_value::<S>(data["spec"].take()).map_err(unreadable)?;
        compile(&name, spec)
    });
    let compiled = match compiled {
        Ok(policy) => Compiled::Usable(policy),
        Err(problems) => {
            let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
            warn!(policy = %name, generation, ?fields, "a policy cannot be applied; left out");
            Compiled::Invalid(problems.into())
        }
    };
    Arc::new(Stored {
        name,
        uid,
        generation,
        created: metadata.creation_timestamp.map(|created| created.0),
        compiled,
    })
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

    fn apply(policies: &Policies, object: DynamicObject) -> bool {
        let key = format!("team/{}", object.metadata.name.as_deref().unwrap_or_default());
        let stored = policies.compile_namespaced(object);
        policies.namespaced.apply(&key, Some(stored));
        policies.rebuild()
    }

    #[test]
    fn a_policy_that_becomes_unusable_is_left_out_and_comes_back_when_repaired() {
        let policies = Policies::new();
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
    fn a_change_of_the_status_compiles_nothing_and_wakes_nobody() {
        let policies = Policies::new();
        apply(&policies, object("p", 1, 0, &json!({"queueName": "a"})));
        let mut known = policies.known();
        let compiled = policies.namespaced.get("team", "p").unwrap();
        let mut again = object("p", 1, 0, &json!({"queueName": "a"}));
        again.data["status"] = json!({"observedGeneration": 1});
        apply(&policies, again);
        assert!(Arc::ptr_eq(&compiled, &policies.namespaced.get("team", "p").unwrap()));
        assert!(!known.has_changed().unwrap());
        apply(&policies, object("p", 2, 0, &json!({"queueName": "b"})));
        assert!(known.has_changed().unwrap());
        assert_eq!(known.borrow_and_update().states.values().next().unwrap().generation, 2);
        // Another one of the same name.
        let mut other = object("p", 2, 0, &json!({"queueName": "c"}));
        other.metadata.uid = Some("other".to_owned());
        apply(&policies, other);
        assert!(known.has_changed().unwrap());
    }

    #[test]
    fn of_too_many_policies_the_oldest_are_in_force_and_only_those_are_kept() {
        let policies = Policies::new();
        let spec = json!({"queueName": "a"});
        let count = MAX_POLICIES + 10;
        // In the order of their names, and the newest first.
        policies.namespaced.begin();
        for index in 0..count {
            let name = format!("p{index:03}");
            let stored = policies.compile_namespaced(object(&name, 1, count - index, &spec));
            policies.namespaced.stage(&format!("team/{name}"), Some(stored));
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
        // A new one is none of them, also when it is listed last.
        assert!(!apply(&policies, object("q", 1, count + 1, &spec)));
        assert_eq!(state("q"), Acceptance::TooMany);
        // One goes: what was dropped has to be listed again.
        policies.namespaced.remove("team/p050");
        assert!(policies.rebuild());
        assert!(!apply(&policies, object("p009", 1, count - 9, &spec)));
        assert_eq!(
            (state("p008"), state("p009")),
            (Acceptance::TooMany, Acceptance::InForce)
        );
    }
}
