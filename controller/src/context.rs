//! What every concern of the controller works with.

use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    runtime::{events::Recorder, reflector::Store},
};
use serde_json::json;
use taskgate_api::{
    Mode, WorkItem, kelos, keys,
    kueue::ConfigRef,
    task_policy::{FailurePolicy, RetriedKind},
};
use taskgate_policy::PolicyScope;

use crate::{
    cancel::{Flavour, Siblings},
    metadata::Told,
    metrics::Metrics,
    policies::Policies,
    retry::Retry,
    source::Sources,
    tasks::TaskIndex,
};

/// The context of all reconcilers.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) task_kind: ApiResource,
    pub(crate) spawner_kind: ApiResource,
    pub(crate) policies: Policies,
    pub(crate) work_items: Store<WorkItem>,
    pub(crate) index: TaskIndex,
    /// What the trackers say of the items that policies wait for.
    pub(crate) sources: Sources,
    pub(crate) recorder: Recorder,
    /// Who this replica is.
    pub(crate) identity: String,
    pub(crate) flavour: Flavour,
    pub(crate) siblings: Siblings,
    /// The Tasks whose left-out labels were told about.
    pub(crate) told: Told,
    pub(crate) metrics: Metrics,
    pub(crate) work_item_cap: usize,
    /// Where Kueue's configuration is.
    pub(crate) kueue: ConfigRef,
    /// The kinds that are retried.
    pub(crate) retries: Vec<RetriedKind>,
    /// Taskgate's own namespace.
    pub(crate) namespace: String,
    /// What the retry part knows beyond what is stored.
    pub(crate) retry: Retry,
}

impl Context {
    /// Waits until everything is known that decides about Tasks.
    pub(crate) async fn ready(&self) {
        let policies = &self.policies;
        policies.ready().await;
        // An error means that the watch was dropped, and then this is dropped as well.
        let _ = policies.local.wait_until_ready().await;
        let _ = policies.cluster.wait_until_ready().await;
        let _ = policies.namespaces.wait_until_ready().await;
        let _ = policies.spawners.wait_until_ready().await;
        let _ = self.work_items.wait_until_ready().await;
    }

    /// Whether nothing of `namespace` is ever sent to taskgate: it creates and deletes nothing there either.
    pub(crate) fn is_excluded(&self, namespace: &str) -> bool {
        self.policies.is_opted_out(namespace)
            || namespace == self.namespace
            || keys::EXCLUDED_NAMESPACES.contains(&namespace)
    }

    /// Whether the failure section is enforced for Tasks of the item's spawner: an item that is only observed is not
    /// skipped, whatever its memory says.
    pub(crate) fn is_enforced(&self, item: &WorkItem) -> bool {
        item.spec.spawner.is_some() && self.rule_of(item).is_some_and(|(mode, _)| mode == Mode::Enforce)
    }

    /// The failure section that would govern the item's next Task, and how far it may go; as far as that can be said
    /// without the Task.
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
}
