//! The policies of a snapshot, compiled, and which of them govern a Task.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use taskgate_api::{ClusterTaskPolicySpec, Mode, TaskPolicySpec, kelos::Task, keys, metadata::Metadata};
use taskgate_policy::{
    Candidate, FailureRule, Policy, PolicyName, PolicyScope, PolicySet, RetryRule, SpawnerInfo, retry::Retried,
};
use taskgate_webhook::rules::EXCLUDED_NAMESPACES;

use super::kinds::{Kind, Snapshot, Trouble};

/// The policies and what they select by.
pub(in crate::commands) struct Policies {
    set: PolicySet,
    /// Every policy, those that cannot be applied included.
    pub(in crate::commands) written: Vec<Written>,
    namespaces: HashMap<String, BTreeMap<String, String>>,
    spawners: HashMap<(String, String), SpawnerInfo>,
    /// Why it cannot be said which policies govern a Task.
    pub(in crate::commands) unknown: Option<String>,
}

/// A policy as it was written.
pub(in crate::commands) struct Written {
    pub(in crate::commands) name: PolicyName,
    /// How far it may go; `None` where its spec cannot be read.
    pub(in crate::commands) mode: Option<Mode>,
    /// Why it cannot be applied.
    pub(in crate::commands) problem: Option<String>,
}

impl Policies {
    pub(in crate::commands) fn of(snapshot: &Snapshot) -> Self {
        let mut compiled = Vec::new();
        let mut written = Vec::new();
        let mut take = |name: PolicyName, outcome: Result<(Policy, Mode), (Option<Mode>, String)>| {
            let (mode, problem) = match outcome {
                Ok((policy, mode)) => {
                    compiled.push(policy);
                    (Some(mode), None)
                }
                Err((mode, problem)) => (mode, Some(problem)),
            };
            written.push(Written { name, mode, problem });
        };
        for (namespace, name, object) in named(snapshot, Kind::Policies) {
            let outcome = compile(object, |spec: &TaskPolicySpec| {
                (Policy::namespaced(&namespace, &name, spec), spec.mode)
            });
            take(PolicyName::Namespaced { namespace, name }, outcome);
        }
        for (_, name, object) in named(snapshot, Kind::ClusterPolicies) {
            let outcome = compile(object, |spec: &ClusterTaskPolicySpec| {
                (Policy::cluster(&name, spec), spec.policy.mode)
            });
            take(PolicyName::Cluster { name }, outcome);
        }
        let labels = |object: &Value| {
            let labels = Metadata::of(object).labels();
            labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        Self {
            set: PolicySet::new(compiled),
            written,
            namespaces: named(snapshot, Kind::Namespaces)
                .map(|(_, name, object)| (name, labels(object)))
                .collect(),
            spawners: named(snapshot, Kind::Spawners)
                .map(|(namespace, name, object)| ((namespace, name), SpawnerInfo::of(object)))
                .collect(),
            unknown: unknown(snapshot),
        }
    }

    /// Whether the API server shows taskgate nothing of `namespace` (C9).
    pub(in crate::commands) fn leaves_out(&self, namespace: &str) -> bool {
        let labels = self.namespaces.get(namespace);
        EXCLUDED_NAMESPACES.contains(&namespace) || labels.is_some_and(keys::is_opted_out)
    }

    /// The policy lookup for `object` in `namespace`.
    fn scope<'p, 's>(&'p self, namespace: &'s str, object: &Value) -> PolicyScope<'p, 's>
    where
        'p: 's,
    {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let spawner = Task::of(object).spawner().unwrap_or_default();
        let spawner = self.spawners.get(&(namespace.to_owned(), spawner.to_owned()));
        let labels = self.namespaces.get(namespace).unwrap_or(&NONE);
        PolicyScope::new(&self.set, namespace, labels, spawner)
    }

    /// The policies that could govern `object` in `namespace`, strongest first.
    pub(in crate::commands) fn candidates(&self, namespace: &str, object: &Value) -> Vec<Candidate<'_>> {
        self.scope(namespace, object).candidates(object)
    }

    /// The failure section that governs `task` in `namespace`, if one does.
    pub(in crate::commands) fn failure(&self, namespace: &str, task: &Value) -> Option<FailureRule<'_>> {
        let known = self.unknown.is_none() && !self.leaves_out(namespace);
        known.then(|| self.scope(namespace, task).failure(task)).flatten()
    }

    /// The retry section that governs `object` in `namespace`, if one does.
    pub(in crate::commands) fn retry(&self, namespace: &str, object: Retried<'_>) -> Option<RetryRule<'_>> {
        self.scope(namespace, object.object())
            .retry(object.kind(), object.object())
    }

    /// The policies that govern `task`, the strongest of each section; `None` where that cannot be said.
    pub(in crate::commands) fn governing(&self, task: &Value) -> Option<Vec<PolicyName>> {
        let namespace = Metadata::of(task).namespace().unwrap_or_default();
        if self.leaves_out(namespace) {
            return Some(Vec::new());
        }
        if self.unknown.is_some() {
            return None;
        }
        let mut names: Vec<PolicyName> = Vec::new();
        for found in self.scope(namespace, task).governing(task) {
            if !names.contains(found.policy) {
                names.push(found.policy.clone());
            }
        }
        Some(names)
    }
}

/// What has to be known to say who governs a Task, and is not.
fn unknown(snapshot: &Snapshot) -> Option<String> {
    let needed = [Kind::Policies, Kind::ClusterPolicies, Kind::Namespaces, Kind::Spawners];
    needed.into_iter().find_map(|kind| match snapshot.trouble(kind)? {
        Trouble::Absent => None,
        Trouble::Said(message) => Some(message.clone()),
    })
}

fn named(snapshot: &Snapshot, kind: Kind) -> impl Iterator<Item = (String, String, &Arc<Value>)> {
    snapshot.objects(kind).iter().filter_map(|object| {
        let metadata = Metadata::of(object);
        let namespace = metadata.namespace().unwrap_or_default().to_owned();
        Some((namespace, metadata.name()?.to_owned(), object))
    })
}

type Compiled = (Result<Policy, Vec<taskgate_policy::Problem>>, Mode);

fn compile<T: DeserializeOwned>(
    object: &Value,
    compile: impl FnOnce(&T) -> Compiled,
) -> Result<(Policy, Mode), (Option<Mode>, String)> {
    let spec: T = serde_json::from_value(object["spec"].clone()).map_err(|error| (None, error.to_string()))?;
    match compile(&spec) {
        (Ok(policy), mode) => Ok((policy, mode)),
        (Err(problems), mode) => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Err((Some(mode), problems.join("; ")))
        }
    }
}
