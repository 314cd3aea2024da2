//! Which policies select what there is: Tasks, Workloads, and spawners, each of which stands for the Tasks that it makes.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use taskgate_api::{
    ClusterTaskPolicySpec, Mode, Selector, SelectorExt as _, TaskPolicySpec, condition::Condition, kelos,
    metadata::Metadata,
};
use taskgate_policy::{Policy, PolicyName, PolicyScope, PolicySet, SpawnerInfo};

use super::{name_of, namespace_of, text};
use crate::commands::doctor::facts::Facts;

/// The policies, and what they select.
pub(super) struct Reach<'a> {
    /// Every policy, those that cannot be applied included.
    pub(super) written: Vec<Written<'a>>,
    /// What there is, with all policies that select it, strongest first.
    pub(super) selected: Vec<Selected<'a>>,
    /// Whether there is more than was read.
    pub(super) more: bool,
    /// The labels of each namespace.
    pub(super) namespaces: HashMap<&'a str, BTreeMap<String, String>>,
}

/// A policy as it was written.
pub(super) struct Written<'a> {
    pub(super) name: PolicyName,
    pub(super) object: &'a Value,
    /// `None` where it cannot be read.
    pub(super) spec: Option<TaskPolicySpec>,
    /// Whether it comes before every policy that is not enforced.
    pub(super) enforced: bool,
    /// Which namespaces a cluster policy reaches by their labels; its own for the others.
    pub(super) namespaces: Vec<&'a str>,
    /// Why it cannot be applied.
    pub(super) problem: Option<String>,
}

/// A Task, a Workload, or a spawner.
pub(super) struct Selected<'a> {
    pub(super) namespace: &'a str,
    /// As `TaskSpawner/fixer`.
    pub(super) title: String,
    pub(super) by: Vec<PolicyName>,
}

impl Written<'_> {
    /// Whether it may do anything at all.
    pub(super) fn is_on(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.mode != Mode::Off)
    }

    /// How it is called among others.
    pub(super) fn title(&self) -> String {
        match &self.name {
            PolicyName::Namespaced { namespace, name } => format!("TaskPolicy {namespace}/{name}"),
            PolicyName::Cluster { name } => format!("ClusterTaskPolicy {name}"),
        }
    }

    /// What taskgate itself says of it.
    pub(super) fn accepted(&self) -> Option<Condition<'_>> {
        Condition::find(self.object, "Accepted")
    }
}

impl<'a> Reach<'a> {
    pub(super) fn of(facts: &'a Facts) -> Self {
        let namespaces: HashMap<_, _> = facts
            .namespaces
            .iter()
            .flatten()
            .map(|namespace| (name_of(namespace), labels(namespace)))
            .collect();
        let mut compiled = Vec::new();
        let mut written = Vec::new();
        for object in facts.policies.iter().flatten() {
            let (namespace, name) = (namespace_of(object), name_of(object));
            let spec: Result<TaskPolicySpec, _> = read(object);
            let policy = spec.as_ref().ok().map(|spec| Policy::namespaced(namespace, name, spec));
            let name = PolicyName::Namespaced {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            let problem = take(policy, spec.as_ref().err(), &mut compiled);
            written.push(Written {
                name,
                object,
                spec: spec.ok(),
                enforced: false,
                namespaces: vec![namespace],
                problem,
            });
        }
        for object in facts.cluster_policies.iter().flatten() {
            let name = name_of(object);
            let spec: Result<ClusterTaskPolicySpec, _> = read(object);
            let policy = spec.as_ref().ok().map(|spec| Policy::cluster(name, spec));
            let problem = take(policy, spec.as_ref().err(), &mut compiled);
            let selector = spec.as_ref().ok().and_then(|spec| spec.namespace_selector.clone());
            let reached = namespaces
                .iter()
                .filter(|(_, labels)| selects(selector.clone(), labels));
            written.push(Written {
                name: PolicyName::Cluster { name: name.to_owned() },
                object,
                enforced: spec.as_ref().is_ok_and(|spec| spec.enforced),
                spec: spec.ok().map(|spec| spec.policy),
                namespaces: reached.map(|(name, _)| *name).collect(),
                problem,
            });
        }
        let policies = PolicySet::new(compiled);
        let (tasks, workloads) = (facts.tasks.as_ref().ok(), facts.workloads.as_ref().ok());
        let mut reach = Self {
            written,
            selected: Vec::new(),
            more: tasks.into_iter().chain(workloads).any(|page| page.more),
            namespaces,
        };
        let spawners: HashMap<_, _> = facts
            .spawners
            .iter()
            .flatten()
            .map(|spawner| ((namespace_of(spawner), name_of(spawner)), SpawnerInfo::of(spawner)))
            .collect();
        for spawner in facts.spawners.iter().flatten() {
            reach.add(&policies, &spawners, spawner, "TaskSpawner", &task_of(spawner));
        }
        for (kind, page) in [("Task", tasks), ("Workload", workloads)] {
            for object in page.into_iter().flat_map(|page| &page.objects) {
                reach.add(&policies, &spawners, object, kind, object);
            }
        }
        reach
    }

    /// Adds `object`, which is selected as `task` is.
    fn add(
        &mut self,
        policies: &PolicySet,
        spawners: &HashMap<(&str, &str), SpawnerInfo>,
        object: &'a Value,
        kind: &str,
        task: &Value,
    ) {
        let namespace = namespace_of(object);
        let none = BTreeMap::new();
        let labels = self.namespaces.get(namespace).unwrap_or(&none);
        let spawner = kelos::Task::of(task).spawner().unwrap_or_default();
        let reaching =
            PolicyScope::new(policies, namespace, labels, spawners.get(&(namespace, spawner))).candidates(task);
        let selecting = reaching.into_iter().filter(|candidate| candidate.mismatch.is_none());
        self.selected.push(Selected {
            namespace,
            title: format!("{kind}/{}", name_of(object)),
            by: selecting.map(|candidate| candidate.policy.clone()).collect(),
        });
    }
}

fn read<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
    serde_json::from_value(object["spec"].clone()).map_err(|error| error.to_string())
}

type Compiled = Result<Policy, Vec<taskgate_policy::Problem>>;

/// Keeps a policy that can be applied; of another one, why it cannot.
fn take(policy: Option<Compiled>, unreadable: Option<&String>, compiled: &mut Vec<Policy>) -> Option<String> {
    match policy {
        Some(Ok(policy)) => {
            compiled.push(policy);
            None
        }
        Some(Err(problems)) => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Some(problems.join("; "))
        }
        None => unreadable.cloned(),
    }
}

pub(super) fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = Metadata::of(object).labels();
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Whether labels meet a selector. One that is none meets nothing: who wrote it is told elsewhere.
pub(super) fn selects(selector: Option<LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| Selector::try_from(selector).is_ok_and(|selector| selector.matches(labels)))
}

/// A Task as `spawner` makes them, as far as policies select by it. Labels from templates are not known.
fn task_of(spawner: &Value) -> Value {
    let template = &spawner["spec"]["taskTemplate"];
    let mut labels = template["metadata"]["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[kelos::SPAWNER_LABEL] = name_of(spawner).into();
    let kind = match text(template, "/worker/type") {
        "" => text(template, "/type"),
        kind => kind,
    };
    json!({
        "metadata": {"namespace": namespace_of(spawner), "labels": labels},
        "spec": {"type": kind},
    })
}
