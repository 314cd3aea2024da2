//! What every reconciler needs, and nothing that belongs to one feature.
//!
//! Imports `events` (the queue), `kubernetes` and `workqueue`. Built once in `controller`; each feature keeps its own state beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject},
};
use serde_json::json;
use taskgate_api::{Mode, WorkItem, kelos, keys, task_policy::FailurePolicy};
use taskgate_cache::{ClusterCache, kelos_resource};
use taskgate_policy::{PolicyScope, PolicySet, SpawnerInfo, TaskState};
use tokio::sync::watch;

use crate::{events::EventQueue, workqueue::PanicMetrics};

/// Namespace and name of a `WorkItem`.
pub(crate) type ItemRef = (String, String);

/// The shared context of all reconcilers.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) task_kind: ApiResource,
    pub(crate) spawner_kind: ApiResource,
    /// Policies, namespaces, spawners, WorkItems and Tasks, as the watches showed them last.
    pub(crate) cache: Arc<ClusterCache>,
    /// Whether the cache is filled, and the retries in flight are counted.
    pub(crate) started: watch::Sender<bool>,
    /// Whether the first batch of Tasks was followed: what is computed from all Tasks is.
    pub(crate) tasks_followed: watch::Sender<bool>,
    pub(crate) events: EventQueue,
    /// The identity of this replica.
    pub(crate) identity: String,
    /// Taskgate's own namespace.
    pub(crate) namespace: String,
    pub(crate) panics: PanicMetrics,
}

impl Context {
    /// Waits until the cache is filled, and what is computed from all `WorkItem`s.
    pub(crate) async fn ready(&self) {
        // The sender is in `self`.
        let _ = self.started.subscribe().wait_for(|started| *started).await;
    }

    /// Waits until what is computed from all Tasks is.
    pub(crate) async fn tasks_followed(&self) {
        // The sender is in `self`.
        let _ = self.tasks_followed.subscribe().wait_for(|followed| *followed).await;
    }

    /// What time it is, by the API server's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.cache.clock().now()
    }

    /// The Tasks of a work item.
    pub(crate) fn tasks_of(&self, (namespace, name): &ItemRef) -> Vec<TaskState> {
        self.cache.tasks_of_item(namespace, name)
    }

    /// Whether a work item has Tasks.
    pub(crate) fn has_tasks(&self, (namespace, name): &ItemRef) -> bool {
        self.cache.has_tasks_of_item(namespace, name)
    }

    /// The policies in force at the moment.
    pub(crate) fn policies(&self) -> Arc<PolicySet> {
        self.cache.policies()
    }

    /// The labels of a namespace; none when the cache does not have it.
    pub(crate) fn namespace_labels(&self, name: &str) -> Arc<BTreeMap<String, String>> {
        self.cache.namespace_labels(name).unwrap_or_default()
    }

    /// Whether the namespace is opted out by its label. The API server then sends nothing of it to admission, and the
    /// controller only removes its finalizers there.
    pub(crate) fn is_opted_out(&self, namespace: &str) -> bool {
        keys::is_opted_out(&self.namespace_labels(namespace))
    }

    /// The inputs of a decision that a spawner gives.
    pub(crate) fn spawner(&self, namespace: &str, name: &str) -> Option<Arc<SpawnerInfo>> {
        let found = self.cache.spawners().get(namespace, name)?;
        Some(Arc::clone(&found.info))
    }

    /// Whether the API server never sends objects of `namespace` to taskgate: the controller then creates and deletes nothing there.
    pub(crate) fn is_excluded(&self, namespace: &str) -> bool {
        self.is_opted_out(namespace) || namespace == self.namespace || keys::EXCLUDED_NAMESPACES.contains(&namespace)
    }

    /// The spawners that a work item concerns: the one whose item it is, or those that have a Task of an item that Tasks state.
    pub(crate) fn spawners_of(&self, item: &ItemRef, spawner: Option<&str>) -> BTreeSet<String> {
        match spawner {
            Some(spawner) => BTreeSet::from([spawner.to_owned()]),
            None => self
                .tasks_of(item)
                .into_iter()
                .filter_map(|task| task.spawner)
                .collect(),
        }
    }

    /// Whether the failure section is enforced for Tasks of this item that `spawner` creates: an item that is only observed is not
    /// skipped, whatever its status says.
    pub(crate) fn is_enforced(&self, item: &WorkItem, spawner: &str) -> bool {
        let rule = self.rule_for(item, Some(spawner));
        rule.is_some_and(|(mode, _)| mode == Mode::Enforce)
    }

    /// The failure section that would govern the item's next Task, with its mode; as far as that is known without the Task.
    pub(crate) fn rule_of(&self, item: &WorkItem) -> Option<(Mode, FailurePolicy)> {
        self.rule_for(item, item.spec.spawner.as_deref())
    }

    /// The same of a Task that spawner `name` creates, or none.
    fn rule_for(&self, item: &WorkItem, name: Option<&str>) -> Option<(Mode, FailurePolicy)> {
        let namespace = item.namespace()?;
        let mut task = json!({"metadata": {"labels": {}, "annotations": {}}});
        if let Some(name) = name {
            task["metadata"]["labels"][kelos::SPAWNER_LABEL] = name.into();
        }
        if item.spec.spawner.is_none() {
            task["metadata"]["annotations"][keys::ITEM] = item.spec.key.as_str().into();
        }
        let labels = self.namespace_labels(&namespace);
        let spawner = name.and_then(|name| self.spawner(&namespace, name));
        let policies = self.policies();
        let found = PolicyScope::new(&policies, &namespace, &labels, spawner.as_deref()).failure(&task)?;
        Some((found.mode, found.rule.clone()))
    }

    /// What `find` looks up among the policies that can apply to objects of this namespace and spawner.
    pub(crate) fn in_scope<T>(
        &self,
        namespace: &str,
        spawner: Option<&str>,
        find: impl FnOnce(PolicyScope<'_, '_>) -> T,
    ) -> T {
        let (policies, labels) = (self.policies(), self.namespace_labels(namespace));
        let spawner = spawner.and_then(|name| self.spawner(namespace, name));
        find(PolicyScope::new(&policies, namespace, &labels, spawner.as_deref()))
    }

    pub(crate) fn tasks(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &self.task_kind)
    }

    pub(crate) fn spawners(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &self.spawner_kind)
    }

    /// Kelos' Workspaces.
    pub(crate) fn workspaces(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = kelos_resource(&self.spawner_kind.version, "Workspace", "workspaces");
        Api::namespaced_with(self.client.clone(), namespace, &kind)
    }

    pub(crate) fn work_items(&self, namespace: &str) -> Api<WorkItem> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The `WorkItem` as the cache has it, which is enough to see that nothing is to be done.
    pub(crate) fn cached_work_item(&self, (namespace, name): &ItemRef) -> Option<Box<WorkItem>> {
        let cached = self.cache.work_items().get(namespace, name)?;
        Some(Box::new(cached.expand()))
    }
}
