//! What every reconciler needs, and nothing that belongs to one feature.
//!
//! Imports `events` (the queue), `kubernetes`, `task_index` and `workqueue`. Built once in `controller`; each feature keeps its own state beside it.

use std::{collections::BTreeMap, sync::Arc};

use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject},
};
use serde_json::json;
use taskgate_api::{Mode, WorkItem, kelos, keys, task_policy::FailurePolicy};
use taskgate_cache::{ClusterCache, kelos_resource};
use taskgate_policy::{PolicyScope, PolicySet, SpawnerInfo};
use tokio::sync::watch;

use crate::{
    events::EventQueue,
    task_index::{ItemRef, TaskIndex},
    workqueue::PanicMetrics,
};

/// The shared context of all reconcilers.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) task_kind: ApiResource,
    pub(crate) spawner_kind: ApiResource,
    /// Policies, namespaces, spawners, WorkItems and Tasks, as the watches showed them last.
    pub(crate) cache: Arc<ClusterCache>,
    /// Whether the cache is filled, and the retries in flight are counted.
    pub(crate) started: watch::Sender<bool>,
    /// The Tasks of each work item.
    pub(crate) task_index: TaskIndex,
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

    /// Whether the failure section is enforced for Tasks of the item's spawner: an item that is only observed is not
    /// skipped, whatever its status says.
    pub(crate) fn is_enforced(&self, item: &WorkItem) -> bool {
        item.spec.spawner.is_some() && self.rule_of(item).is_some_and(|(mode, _)| mode == Mode::Enforce)
    }

    /// The failure section that would govern the item's next Task, with its mode; as far as that is known without the Task.
    pub(crate) fn rule_of(&self, item: &WorkItem) -> Option<(Mode, FailurePolicy)> {
        let namespace = item.namespace()?;
        let name = item.spec.spawner.as_deref();
        let task = match name {
            Some(name) => json!({"metadata": {"labels": {kelos::SPAWNER_LABEL: name}}}),
            None => json!({"metadata": {"annotations": {keys::ITEM: item.spec.key}}}),
        };
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
