//! The policies of a snapshot, compiled, and those that govern an object.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use taskgate_api::{
    ClusterTaskPolicySpec, Mode, Selector, SelectorExt as _, TaskPolicySpec,
    kelos::{self, Task},
    kelos_fields::{KelosField, SpawnerFields},
    keys,
    metadata::Metadata,
};
use taskgate_policy::{
    Candidate, FailureRule, Policy, PolicyName, PolicyScope, PolicySet, Problem, RetryRule, SpawnerInfo,
    retry::Retried, spec_of_spawner,
};
use taskgate_webhook::rules::EXCLUDED_NAMESPACES;

use super::{Collection, Snapshot};

/// A policy object, or a TaskSpawner with policy fields, and the policy that it compiles to.
pub(crate) struct CompiledPolicy {
    pub(crate) name: PolicyName,
    pub(crate) object: Arc<Value>,
    /// `None` where it cannot be parsed.
    pub(crate) spec: Option<TaskPolicySpec>,
    /// Whether it comes before every policy that is not enforced.
    pub(crate) enforced: bool,
    namespace_selector: Option<LabelSelector>,
    /// The policy, or why it cannot be applied.
    pub(crate) policy: Result<Policy, Vec<String>>,
}

impl CompiledPolicy {
    /// Compiles a `TaskPolicy`.
    pub(crate) fn namespaced(object: &Arc<Value>) -> Self {
        let metadata = Metadata::of(object);
        let namespace = metadata.namespace().unwrap_or("default").to_owned();
        let name = metadata.name().unwrap_or("policy").to_owned();
        let (spec, policy) = compile(object, |spec| Policy::namespaced(&namespace, &name, spec));
        Self {
            name: PolicyName::Namespaced { namespace, name },
            object: object.clone(),
            spec,
            enforced: false,
            namespace_selector: None,
            policy,
        }
    }

    /// Compiles a `ClusterTaskPolicy`.
    pub(crate) fn cluster(object: &Arc<Value>) -> Self {
        let name = Metadata::of(object).name().unwrap_or("policy").to_owned();
        let (spec, policy) = compile(object, |spec| Policy::cluster(&name, spec));
        let spec: Option<ClusterTaskPolicySpec> = spec;
        Self {
            name: PolicyName::Cluster { name },
            object: object.clone(),
            enforced: spec.as_ref().is_some_and(|spec| spec.enforced),
            namespace_selector: spec.as_ref().and_then(|spec| spec.namespace_selector.clone()),
            spec: spec.map(|spec| spec.policy),
            policy,
        }
    }

    /// Compiles the policy fields of a TaskSpawner; `None` if it has none. Their copy in an annotation, which outlives the fields in
    /// the schema, is not read.
    pub(crate) fn spawner(object: &Arc<Value>) -> Option<Self> {
        let metadata = Metadata::of(object);
        let namespace = metadata.namespace().unwrap_or("default").to_owned();
        let name = metadata.name().unwrap_or("spawner").to_owned();
        let fields = SpawnerFields::read(&json!({"spec": object["spec"]}), &KelosField::all());
        let policy = Policy::of_spawner(&namespace, &name, &fields)?;
        let policy = policy.map_err(|problems| problems.iter().map(ToString::to_string).collect());
        Some(Self {
            spec: fields.ok().map(|fields| spec_of_spawner(&name, &fields)),
            name: PolicyName::Spawner { namespace, name },
            object: object.clone(),
            enforced: false,
            namespace_selector: None,
            policy,
        })
    }

    /// Whether it is the policy fields of a TaskSpawner.
    pub(crate) fn is_spawner(&self) -> bool {
        matches!(self.name, PolicyName::Spawner { .. })
    }

    /// Why it cannot be applied.
    pub(crate) fn problem(&self) -> Option<String> {
        self.policy.as_ref().err().map(|problems| problems.join("; "))
    }

    /// Whether its mode lets it do anything.
    pub(crate) fn is_on(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.mode != Mode::Off)
    }

    /// Its namespace; `None` for a `ClusterTaskPolicy`.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.name.namespace()
    }

    /// Whether it is a `ClusterTaskPolicy`.
    pub(crate) fn is_cluster(&self) -> bool {
        self.namespace().is_none()
    }

    /// As `TaskPolicy team/agents`.
    pub(crate) fn title(&self) -> String {
        self.name.title()
    }

    /// Whether it applies to a namespace of this name and these labels.
    pub(crate) fn includes(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        match self.namespace() {
            Some(own) => own == namespace,
            None => matches(self.namespace_selector.clone(), labels),
        }
    }
}

/// The spec of `object`, where it can be parsed, and the policy or its problems.
fn compile<S: DeserializeOwned>(
    object: &Value,
    compile: impl FnOnce(&S) -> Result<Policy, Vec<Problem>>,
) -> (Option<S>, Result<Policy, Vec<String>>) {
    match S::deserialize(&object["spec"]) {
        Ok(spec) => {
            let policy = compile(&spec);
            let policy = policy.map_err(|problems| problems.iter().map(ToString::to_string).collect());
            (Some(spec), policy)
        }
        Err(error) => (None, Err(vec![format!("spec: {error}")])),
    }
}

/// All policies, and the objects that they select by.
pub(crate) struct CompiledPolicies {
    set: PolicySet,
    /// Every policy, those that cannot be applied included.
    pub(crate) all: Vec<CompiledPolicy>,
    pub(crate) namespaces: HashMap<String, BTreeMap<String, String>>,
    spawners: HashMap<(String, String), SpawnerInfo>,
    /// Why it is not known which policies govern a Task.
    pub(crate) unknown: Option<String>,
}

impl CompiledPolicies {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        const REQUIRED: [Collection; 4] = [
            Collection::Policies,
            Collection::ClusterPolicies,
            Collection::Namespaces,
            Collection::Spawners,
        ];
        let [policies, cluster, namespaces, spawners] = REQUIRED.map(|collection| snapshot.objects(collection));
        let all = policies.iter().map(CompiledPolicy::namespaced);
        let of_spawners = spawners.iter().filter_map(CompiledPolicy::spawner);
        let all = all
            .chain(cluster.iter().map(CompiledPolicy::cluster))
            .chain(of_spawners);
        let all: Vec<_> = all.collect();
        let key = |object: &Value| {
            let metadata = Metadata::of(object);
            Some((
                metadata.namespace().unwrap_or_default().to_owned(),
                metadata.name()?.to_owned(),
            ))
        };
        let namespaces = namespaces
            .iter()
            .filter_map(|object| Some((key(object)?.1, labels(object))));
        let spawners = spawners
            .iter()
            .filter_map(|object| Some((key(object)?, SpawnerInfo::of(object))));
        let error = |collection| Some(snapshot.error(collection)?.message()?.to_owned());
        Self {
            set: PolicySet::new(all.iter().filter_map(|policy| policy.policy.as_ref().ok().cloned())),
            all,
            namespaces: namespaces.collect(),
            spawners: spawners.collect(),
            unknown: REQUIRED.into_iter().find_map(error),
        }
    }

    /// Whether the webhooks exclude `namespace`.
    pub(crate) fn excludes(&self, namespace: &str) -> bool {
        let labels = self.namespaces.get(namespace);
        EXCLUDED_NAMESPACES.contains(&namespace) || labels.is_some_and(keys::is_opted_out)
    }

    /// The policies that can apply to `object` in `namespace`.
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
    pub(crate) fn candidates(&self, namespace: &str, object: &Value) -> Vec<Candidate<'_>> {
        self.scope(namespace, object).candidates(object)
    }

    /// The failure section that governs `task` in `namespace`.
    pub(crate) fn failure(&self, namespace: &str, task: &Value) -> Option<FailureRule<'_>> {
        if self.unknown.is_some() || self.excludes(namespace) {
            return None;
        }
        self.scope(namespace, task).failure(task)
    }

    /// The retry section that governs `object` in `namespace`.
    pub(crate) fn retry(&self, namespace: &str, object: Retried<'_>) -> Option<RetryRule<'_>> {
        self.scope(namespace, object.object())
            .retry(object.kind(), object.object())
    }

    /// The policies that govern `task`, the strongest of each section; `None` where that is not known.
    pub(crate) fn governing(&self, task: &Value) -> Option<Vec<PolicyName>> {
        let namespace = Metadata::of(task).namespace().unwrap_or_default();
        if self.excludes(namespace) {
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

/// A Task as the spawner `name` would create it, as far as policies select by it. Labels from templates are not known.
pub(crate) fn sample_task(namespace: &str, name: &str, spawner: Option<&Value>) -> Value {
    let template = spawner.and_then(|spawner| spawner.pointer("/spec/taskTemplate"));
    let labels = template.and_then(|template| template.pointer("/metadata/labels"));
    let mut labels = labels.filter(|labels| labels.is_object()).cloned().unwrap_or(json!({}));
    labels[kelos::SPAWNER_LABEL] = name.into();
    json!({"metadata": {"namespace": namespace, "labels": labels}, "spec": template})
}

/// The labels of an object.
pub(crate) fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = Metadata::of(object).labels();
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Whether labels match a selector. An invalid one matches nothing.
pub(crate) fn matches(selector: Option<LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| Selector::try_from(selector).is_ok_and(|selector| selector.matches(labels)))
}
