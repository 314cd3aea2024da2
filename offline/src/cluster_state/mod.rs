//! The state of a cluster as far as decisions depend on it, built from objects.
//!
//! The same kinds as in the server's cache and live reads, with the same rules: a policy that cannot be applied is skipped, a
//! `WorkItem` belongs to the item of its key, and a Task with a UID is stored.
//!
//! Imports `schema` (the kind of an object, and how the API server stores a policy). Called by `evaluator`, by `case` and by the binary.

mod context;
mod live;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use kube::Client;
use serde::Serialize;
use serde_json::Value;
use taskgate_api::{
    GROUP, WorkItem, WorkItemSpec, WorkItemStatus, kelos,
    kelos_fields::{KelosField, KelosFields, SpawnerFields},
    keys,
    kueue::{self, ConfigRef, Settings},
    metadata::Metadata,
};
use taskgate_policy::{
    ItemIdentity, Policy, PolicyName, PolicySet, SpawnerInfo, TaskState, WorkspaceInfo,
    kelos_fields::{FieldState, schema_fields},
};

use crate::schema::{Schemas, kind_of};
pub use live::{LoadError, load};

/// Objects by namespace and name.
type ObjectMap<V> = HashMap<(String, String), V>;

fn key(namespace: &str, name: &str) -> (String, String) {
    (namespace.to_owned(), name.to_owned())
}

/// A policy, or the configuration of Kueue, that cannot be applied, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RejectedPolicy {
    /// The policy, such as `TaskPolicy team-a/agents`.
    pub policy: String,
    /// Its problems.
    pub problems: Vec<String>,
}

/// How to read missing objects, users and rights.
#[derive(Clone, Default)]
pub struct ClusterStateOptions {
    /// Whether the objects are complete: a missing Workspace, `LocalQueue` or Kueue itself does not exist. Otherwise it is
    /// unknown whether it exists.
    pub complete: bool,
    /// Checks the rights of users. `None`: every user has every right.
    pub permissions: Option<Client>,
    /// The user that taskgate itself is authenticated as.
    pub own_user: Option<String>,
}

/// The state of a cluster.
#[derive(Default)]
pub struct ClusterState {
    policies: Arc<PolicySet>,
    rejected: Vec<RejectedPolicy>,
    namespaces: HashMap<String, BTreeMap<String, String>>,
    spawners: ObjectMap<Arc<SpawnerInfo>>,
    workspaces: ObjectMap<Arc<WorkspaceInfo>>,
    work_items: ObjectMap<Result<Arc<WorkItem>, String>>,
    tasks: ObjectMap<Value>,
    tasks_of: ObjectMap<Vec<TaskState>>,
    /// Kueue's LocalQueues, by namespace.
    queues: HashMap<String, BTreeSet<String>>,
    /// Kueue's WorkloadPriorityClasses.
    priority_classes: BTreeSet<String>,
    kueue_settings: Option<Settings>,
    kueue_config_unreadable: bool,
    /// The fields of a TaskSpawner that are taskgate's; `None` where Kelos' schema is not known.
    kelos_fields: Option<KelosFields>,
    /// Whether the API server serves kinds of Kueue.
    has_kueue: bool,
    options: ClusterStateOptions,
}

impl ClusterState {
    /// The state with `objects`. Of two of one kind and name the later one counts. Namespaced objects without a namespace are in
    /// `namespace`.
    pub fn of<'a>(objects: impl IntoIterator<Item = &'a Value>, namespace: &str, options: ClusterStateOptions) -> Self {
        let objects: Vec<_> = objects.into_iter().collect();
        let mut state = Self {
            options,
            kelos_fields: kelos_fields(objects.iter().copied()),
            ..Self::default()
        };
        let mut policies = HashMap::new();
        for object in objects {
            state.add(object, namespace, &mut policies);
        }
        state.index(policies);
        state
    }

    fn add(
        &mut self,
        object: &Value,
        default: &str,
        policies: &mut HashMap<PolicyName, Result<Policy, RejectedPolicy>>,
    ) {
        let kind = kind_of(object);
        let metadata = Metadata::of(object);
        let namespace = metadata.namespace().unwrap_or(default);
        let Some(name) = metadata.name() else {
            if kind.group == GROUP && matches!(kind.kind.as_str(), "TaskPolicy" | "ClusterTaskPolicy") {
                self.reject_nameless(object, &kind.kind, namespace);
            }
            return;
        };
        self.has_kueue |= kind.group == kueue::GROUP;
        match (kind.group.as_str(), kind.kind.as_str()) {
            ("", "Namespace") => {
                let labels = metadata.labels().map(|(key, value)| (key.to_owned(), value.to_owned()));
                self.namespaces.insert(name.to_owned(), labels.collect());
            }
            (GROUP, "TaskPolicy") => {
                let (namespace, name) = (namespace.to_owned(), name.to_owned());
                let name = PolicyName::Namespaced { namespace, name };
                policies.insert(name.clone(), compile(name, object));
            }
            (GROUP, "ClusterTaskPolicy") => {
                let name = PolicyName::Cluster { name: name.to_owned() };
                policies.insert(name.clone(), compile(name, object));
            }
            (GROUP, "WorkItem") => {
                let read = serde_json::from_value(object.clone()).map_err(|error| error.to_string());
                self.work_items.insert(key(namespace, name), read.map(Arc::new));
            }
            (kelos::GROUP, "TaskSpawner") => {
                self.spawners
                    .insert(key(namespace, name), Arc::new(SpawnerInfo::of(object)));
                let (namespace, name) = (namespace.to_owned(), name.to_owned());
                let compiled = self.compile_fields(&namespace, &name, object);
                let name = PolicyName::Spawner { namespace, name };
                match compiled {
                    Some(compiled) => drop(policies.insert(name, compiled)),
                    // The later of two counts.
                    None => drop(policies.remove(&name)),
                }
            }
            (kelos::GROUP, "Workspace") => {
                let workspace = Arc::new(WorkspaceInfo::of(object));
                self.workspaces.insert(key(namespace, name), workspace);
            }
            // Without a UID it is not stored yet.
            (kelos::GROUP, "Task") if metadata.uid().is_some() => {
                self.tasks.insert(key(namespace, name), object.clone());
            }
            (kueue::GROUP, "LocalQueue") => {
                let queues = self.queues.entry(namespace.to_owned()).or_default();
                queues.insert(name.to_owned());
            }
            (kueue::GROUP, "WorkloadPriorityClass") => _ = self.priority_classes.insert(name.to_owned()),
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                self.has_kueue |= object["spec"]["group"] == kueue::GROUP;
            }
            ("", "ConfigMap") => {
                let default = ConfigRef::default();
                let text = object["data"][ConfigRef::KEY].as_str();
                if let (true, true, Some(text)) = (namespace == default.namespace, name == default.name, text) {
                    match Settings::read(namespace, text) {
                        Ok(settings) => self.kueue_settings = Some(settings),
                        Err(error) => {
                            self.kueue_config_unreadable = true;
                            self.rejected.push(RejectedPolicy {
                                policy: format!("ConfigMap {default}"),
                                problems: vec![format!("{}: {error}: no Job is queued", ConfigRef::KEY)],
                            });
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// Compiles the policy fields of a TaskSpawner that the schema keeps; all of them where it is not known. `None`: it has none.
    fn compile_fields(&self, namespace: &str, name: &str, object: &Value) -> Option<Result<Policy, RejectedPolicy>> {
        let ours = self.kelos_fields.clone().unwrap_or_else(KelosField::all);
        let fields = SpawnerFields::read(object, &ours);
        let compiled = Policy::of_spawner(namespace, name, &fields)?;
        Some(compiled.map_err(|problems| RejectedPolicy {
            policy: format!("TaskSpawner {namespace}/{name}"),
            problems: problems.iter().map(ToString::to_string).collect(),
        }))
    }

    /// A policy without a name, which the API server does not store as it is.
    fn reject_nameless(&mut self, object: &Value, kind: &str, namespace: &str) {
        let prefix = Metadata::of(object).generate_name().unwrap_or_default();
        let name = match kind {
            "TaskPolicy" => format!("{namespace}/{prefix}*"),
            _ => format!("{prefix}*"),
        };
        let problems = match SCHEMAS.stored(object) {
            Ok(_) => vec!["metadata.name: it is generated when the policy is created".to_owned()],
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        };
        self.rejected.push(RejectedPolicy {
            policy: format!("{kind} {name}"),
            problems,
        });
    }

    /// Builds the policy set and the Tasks by item, after all objects are added.
    fn index(&mut self, policies: HashMap<PolicyName, Result<Policy, RejectedPolicy>>) {
        let mut usable = Vec::new();
        for compiled in policies.into_values() {
            match compiled {
                Ok(policy) => usable.push(policy),
                Err(rejected) => self.rejected.push(rejected),
            }
        }
        self.rejected.sort_by(|a, b| a.policy.cmp(&b.policy));
        self.policies = Arc::new(PolicySet::new(usable));
        for ((namespace, _), task) in &self.tasks {
            let item = Metadata::of(task).label(keys::WORK_ITEM);
            if let (Some(item), Some(state)) = (item, TaskState::of(task)) {
                self.tasks_of.entry(key(namespace, item)).or_default().push(state);
            }
        }
    }

    /// The labels of `namespace`, with the name label that the API server sets. An unknown namespace has only that one.
    pub fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
        labels
    }

    /// The policies in force.
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// The policies that cannot be applied, which the server skips as well.
    pub fn rejected_policies(&self) -> &[RejectedPolicy] {
        &self.rejected
    }

    /// Sets the status of the WorkItem of `item`.
    pub fn set_work_item_status(&mut self, namespace: &str, item: &ItemIdentity, status: WorkItemStatus) {
        let name = item.work_item_name();
        let spec = WorkItemSpec {
            key: item.key.clone(),
            item: item.item.clone(),
            spawner: item.spawner.clone(),
        };
        let mut work_item = WorkItem::new(&name, spec);
        work_item.metadata.namespace = Some(namespace.to_owned());
        work_item.status = Some(status);
        self.work_items.insert(key(namespace, &name), Ok(Arc::new(work_item)));
    }

    /// The stored Task `name`.
    pub fn task(&self, namespace: &str, name: &str) -> Option<&Value> {
        self.tasks.get(&key(namespace, name))
    }

    /// The spawner `name` as decisions need it.
    pub fn spawner_info(&self, namespace: &str, name: &str) -> Option<&SpawnerInfo> {
        self.spawners.get(&key(namespace, name)).map(|spawner| &**spawner)
    }
}

/// The fields of a TaskSpawner that taskgate added to its schema; `None`: the schema is not among `objects`.
pub fn kelos_fields<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Option<KelosFields> {
    let name = KelosField::FailurePolicy.crd();
    let is_it =
        |object: &&Value| object["kind"] == "CustomResourceDefinition" && Metadata::of(object).name() == Some(name);
    let found = schema_fields(objects.into_iter().filter(is_it).last()?);
    let is_added = |field: &KelosField| {
        let mut states = found
            .iter()
            .filter(|found| found.field == *field)
            .map(|found| found.state);
        states.all(|state| matches!(state, FieldState::Added | FieldState::Outdated))
    };
    let of_spawner = KelosField::all().into_iter().filter(|field| field.crd() == name);
    Some(of_spawner.filter(is_added).collect())
}

/// The schemas of policies.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::own);

/// Compiles the policy `object`, called `name`.
fn compile(name: PolicyName, object: &Value) -> Result<Policy, RejectedPolicy> {
    let policy = name.title();
    let problems = match SCHEMAS.stored(object) {
        Ok(object) => match Policy::of_spec(name, &object["spec"]) {
            Ok(policy) => return Ok(policy),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        },
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    Err(RejectedPolicy { policy, problems })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_is_read_as_the_api_server_stores_it() {
        let policy = |name: Value, spec: Value| {
            json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": name, "namespace": "team"},
                "spec": spec})
        };
        let labels = json!({"metadata": {"labels": {"team": "blue", "area": null}}});
        for (name, wanted) in [
            (json!("a"), None),
            (
                json!(2026),
                Some(("TaskPolicy team/*", "metadata.name: json: cannot unmarshal number")),
            ),
            (
                json!(null),
                Some(("TaskPolicy team/*", "metadata.name: Required value")),
            ),
            (
                json!("A_b"),
                Some(("TaskPolicy team/A_b", "metadata.name: Invalid value")),
            ),
        ] {
            let object = policy(name, labels.clone());
            let state = ClusterState::of([&object], "default", ClusterStateOptions::default());
            assert_eq!(state.policies().len(), usize::from(wanted.is_none()), "{object}");
            let rejected = state.rejected_policies().first();
            assert_eq!(
                rejected.map(|rejected| rejected.policy.as_str()),
                wanted.map(|(title, _)| title)
            );
            if let (Some(rejected), Some((_, problem))) = (rejected, wanted) {
                assert!(rejected.problems[0].starts_with(problem), "{rejected:?}");
            }
        }
    }

    #[test]
    fn an_unreadable_configuration_of_kueue_is_reported() {
        let config = |text: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"controller_manager_config.yaml": text},
                "metadata": {"name": "kueue-manager-config", "namespace": "kueue-system"}})
        };
        let rejected = |text: &str| {
            let state = ClusterState::of([&config(text)], "default", ClusterStateOptions::default());
            state.rejected_policies().to_vec()
        };
        assert_eq!(rejected("kind: Configuration\n"), []);
        let [bad] = &rejected("a: [")[..] else {
            panic!("it is not reported")
        };
        assert_eq!(bad.policy, "ConfigMap kueue-system/kueue-manager-config");
        assert!(bad.problems[0].contains("no Job is queued"), "{bad:?}");
    }

    #[test]
    fn the_later_of_two_counts_and_an_invalid_policy_is_rejected() {
        let policy = |queue: &str| {
            json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy",
                "metadata": {"name": "a", "namespace": "team"}, "spec": {"queueName": queue}})
        };
        let state = ClusterState::of(
            [&policy("Not Legal"), &policy("agents")],
            "default",
            ClusterStateOptions::default(),
        );
        assert_eq!((state.policies().len(), state.rejected_policies().len()), (1, 0));
        let state = ClusterState::of(
            [&policy("agents"), &policy("Not Legal")],
            "default",
            ClusterStateOptions::default(),
        );
        assert_eq!(state.policies().len(), 0);
        assert_eq!(state.rejected_policies()[0].policy, "TaskPolicy team/a");
        assert!(state.rejected_policies()[0].problems[0].starts_with("spec.queueName: "));
    }
}
