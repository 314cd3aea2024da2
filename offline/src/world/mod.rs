//! What is in the cluster, as far as documents tell: the surroundings that a verdict needs, without an API server.
//!
//! The same kinds that the server's caches and fresh reads look at, with the same rules: a policy that cannot be applied is
//! left out, a `WorkItem` is the memory of the item that its key names, a Task with a uid is one that is stored.

mod kueue;
mod live;
mod surroundings;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kube::Client;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use taskgate_api::{
    ClusterTaskPolicySpec, GROUP, TaskPolicySpec, WorkItem, WorkItemStatus, kelos, keys, metadata::Metadata,
};
use taskgate_policy::{ItemIdentity, Policy, PolicyName, PolicySet, SpawnerInfo, TaskState, WorkspaceInfo};

use crate::proposal::kind_of;
use kueue::Kueue;
pub use live::{LoadError, load};

/// Objects by namespace and name.
#[derive(Debug)]
struct Table<V>(HashMap<String, HashMap<String, V>>);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<V> Table<V> {
    fn get(&self, namespace: &str, name: &str) -> Option<&V> {
        self.0.get(namespace)?.get(name)
    }

    fn insert(&mut self, namespace: &str, name: &str, value: V) {
        self.0
            .entry(namespace.to_owned())
            .or_default()
            .insert(name.to_owned(), value);
    }
}

/// A policy that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The policy, such as `TaskPolicy team-a/agents`.
    pub policy: String,
    /// What keeps it from being applied.
    pub problems: Vec<String>,
}

/// How much the documents tell.
#[derive(Clone, Default)]
pub struct Knowledge {
    /// Whether they are everything: a Workspace, a `LocalQueue` or Kueue itself that is not there does not exist. Otherwise
    /// nothing is concluded from their absence.
    pub complete: bool,
    /// Whom to ask what a user may do. Without, a user may do what they ask for.
    pub permissions: Option<Client>,
    /// The user that taskgate itself is.
    pub own_user: Option<String>,
}

/// What is in the cluster.
#[derive(Default)]
pub struct World {
    policies: Arc<PolicySet>,
    left_out: Vec<LeftOut>,
    namespaces: HashMap<String, BTreeMap<String, String>>,
    spawners: Table<Arc<SpawnerInfo>>,
    workspaces: Table<Arc<WorkspaceInfo>>,
    work_items: Table<Result<WorkItem, String>>,
    tasks: Table<Value>,
    tasks_of: Table<Vec<TaskState>>,
    kueue: Kueue,
    knowledge: Knowledge,
}

impl World {
    /// The cluster that `objects` make up. Of two of one kind and name the later one counts. Objects of namespaced kinds
    /// without a namespace are in `namespace`.
    pub fn of<'a>(objects: impl IntoIterator<Item = &'a Value>, namespace: &str, knowledge: Knowledge) -> Self {
        let mut world = Self {
            knowledge,
            ..Self::default()
        };
        let mut policies = HashMap::new();
        for object in objects {
            world.add(object, namespace, &mut policies);
        }
        world.settle(policies);
        world
    }

    fn add(&mut self, object: &Value, default: &str, policies: &mut HashMap<PolicyName, Result<Policy, LeftOut>>) {
        let kind = kind_of(object);
        let metadata = Metadata::of(object);
        let namespace = metadata.namespace().unwrap_or(default);
        let Some(name) = metadata.name() else { return };
        match (kind.group.as_str(), kind.kind.as_str()) {
            ("", "Namespace") => {
                let labels = metadata.labels().map(|(key, value)| (key.to_owned(), value.to_owned()));
                self.namespaces.insert(name.to_owned(), labels.collect());
            }
            (GROUP, "TaskPolicy") => {
                let compiled = compile(object, |spec: &TaskPolicySpec| {
                    Policy::namespaced(namespace, name, spec)
                });
                let (namespace, name) = (namespace.to_owned(), name.to_owned());
                let compiled =
                    compiled.map_err(|problems| left_out(&format!("TaskPolicy {namespace}/{name}"), problems));
                policies.insert(PolicyName::Namespaced { namespace, name }, compiled);
            }
            (GROUP, "ClusterTaskPolicy") => {
                let compiled = compile(object, |spec: &ClusterTaskPolicySpec| Policy::cluster(name, spec));
                let compiled = compiled.map_err(|problems| left_out(&format!("ClusterTaskPolicy {name}"), problems));
                policies.insert(PolicyName::Cluster { name: name.to_owned() }, compiled);
            }
            (GROUP, "WorkItem") => {
                let read = serde_json::from_value(object.clone()).map_err(|error| error.to_string());
                self.work_items.insert(namespace, name, read);
            }
            (kelos::GROUP, "TaskSpawner") => {
                self.spawners.insert(namespace, name, Arc::new(SpawnerInfo::of(object)));
            }
            (kelos::GROUP, "Workspace") => {
                self.workspaces
                    .insert(namespace, name, Arc::new(WorkspaceInfo::of(object)));
            }
            // Without a uid it is not stored, but to be made.
            (kelos::GROUP, "Task") if metadata.uid().is_some() => {
                self.tasks.insert(namespace, name, object.clone());
            }
            _ => self.kueue.add(&kind, namespace, name, object),
        }
    }

    /// Draws the conclusions, once everything is there.
    fn settle(&mut self, policies: HashMap<PolicyName, Result<Policy, LeftOut>>) {
        let mut usable = Vec::new();
        for compiled in policies.into_values() {
            match compiled {
                Ok(policy) => usable.push(policy),
                Err(left_out) => self.left_out.push(left_out),
            }
        }
        self.left_out.sort_by(|a, b| a.policy.cmp(&b.policy));
        self.policies = Arc::new(PolicySet::new(usable));
        for (namespace, tasks) in &self.tasks.0 {
            let of_namespace = self.tasks_of.0.entry(namespace.clone()).or_default();
            for task in tasks.values() {
                let item = Metadata::of(task).label(keys::WORK_ITEM);
                if let (Some(item), Some(state)) = (item, TaskState::of(task)) {
                    of_namespace.entry(item.to_owned()).or_default().push(state);
                }
            }
        }
    }

    /// The labels of `namespace`, with its name, which the API server puts there. A namespace that no document shows has
    /// that one alone.
    pub fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
        labels
    }

    /// The policies that are in force.
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// The policies that cannot be applied, which the server leaves out as well.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Puts `status` into the memory of `item`.
    pub fn remember(&mut self, namespace: &str, item: &ItemIdentity, status: WorkItemStatus) {
        let name = item.work_item_name();
        let mut work_item = WorkItem::new(
            &name,
            taskgate_api::WorkItemSpec {
                key: item.key.clone(),
                item: item.item.clone(),
                spawner: item.spawner.clone(),
            },
        );
        work_item.metadata.namespace = Some(namespace.to_owned());
        work_item.status = Some(status);
        self.work_items.insert(namespace, &name, Ok(work_item));
    }

    /// The stored Task of that name.
    pub fn task(&self, namespace: &str, name: &str) -> Option<&Value> {
        self.tasks.get(namespace, name)
    }

    /// What is known of the spawner of that name.
    pub fn spawner_facts(&self, namespace: &str, name: &str) -> Option<&SpawnerInfo> {
        self.spawners.get(namespace, name).map(|spawner| &**spawner)
    }
}

/// The policy that `object` is, or everything that keeps it from being applied.
fn compile<S: DeserializeOwned>(
    object: &Value,
    compile: impl Fn(&S) -> Result<Policy, Vec<taskgate_policy::Problem>>,
) -> Result<Policy, Vec<String>> {
    let spec = S::deserialize(&object["spec"]).map_err(|error| vec![format!("spec: {error}")])?;
    compile(&spec).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn left_out(policy: &str, problems: Vec<String>) -> LeftOut {
    LeftOut {
        policy: policy.to_owned(),
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_later_of_two_counts_and_what_cannot_be_applied_is_left_out() {
        let policy = |queue: &str| {
            json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy",
                "metadata": {"name": "a", "namespace": "team"}, "spec": {"queueName": queue}})
        };
        let world = World::of(
            [&policy("Not Legal"), &policy("agents")],
            "default",
            Knowledge::default(),
        );
        assert_eq!((world.policies().len(), world.left_out().len()), (1, 0));
        let world = World::of(
            [&policy("agents"), &policy("Not Legal")],
            "default",
            Knowledge::default(),
        );
        assert_eq!(world.policies().len(), 0);
        assert_eq!(world.left_out()[0].policy, "TaskPolicy team/a");
        assert!(world.left_out()[0].problems[0].starts_with("spec.queueName: "));
    }
}
