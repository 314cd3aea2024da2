//! What every reconciler needs, and nothing that belongs to one feature.
//!
//! Imports `policies`, `task_index` and `workqueue`. Built once in `controller`; each feature keeps its own state beside it.

use std::sync::Arc;

use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    runtime::{
        events::Recorder,
        reflector::{ObjectRef, Store},
    },
};
use serde_json::json;
use taskgate_api::{Mode, WorkItem, kelos, keys, task_policy::FailurePolicy};
use taskgate_policy::PolicyScope;

use crate::{
    policies::PolicyStore,
    task_index::{ItemRef, TaskIndex},
    workqueue::PanicMetrics,
};

/// The shared context of all reconcilers.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) task_kind: ApiResource,
    pub(crate) spawner_kind: ApiResource,
    pub(crate) policies: PolicyStore,
    /// The cached `WorkItem`s, without the fields that only people read.
    pub(crate) work_items: Store<WorkItem>,
    /// The Tasks of each work item.
    pub(crate) task_index: TaskIndex,
    pub(crate) recorder: Recorder,
    /// The identity of this replica.
    pub(crate) identity: String,
    /// Taskgate's own namespace.
    pub(crate) namespace: String,
    pub(crate) panics: PanicMetrics,
}

impl Context {
    /// Waits until all caches are filled that decide about Tasks.
    pub(crate) async fn ready(&self) {
        self.policies.ready().await;
        // An error means that the watch was dropped, and then this is dropped as well.
        let _ = self.work_items.wait_until_ready().await;
    }

    /// Whether the API server never sends objects of `namespace` to taskgate: the controller then creates and deletes nothing there.
    pub(crate) fn is_excluded(&self, namespace: &str) -> bool {
        self.policies.is_opted_out(namespace)
            || namespace == self.namespace
            || keys::EXCLUDED_NAMESPACES.contains(&namespace)
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
        let labels = self.policies.namespace_labels(&namespace);
        let spawner = name.and_then(|name| self.policies.spawner(&namespace, name));
        let policies = self.policies.current();
        let found = PolicyScope::new(&policies, &namespace, &labels, spawner.as_ref()).failure(&task)?;
        Some((found.mode, found.rule.clone()))
    }

    pub(crate) fn tasks(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &self.task_kind)
    }

    pub(crate) fn spawners(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &self.spawner_kind)
    }

    pub(crate) fn work_items(&self, namespace: &str) -> Api<WorkItem> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The `WorkItem` as the cache has it, which is enough to see that nothing is to be done.
    pub(crate) fn cached_work_item(&self, (namespace, name): &ItemRef) -> Option<Arc<WorkItem>> {
        self.work_items.get(&ObjectRef::new(name).within(namespace))
    }
}
