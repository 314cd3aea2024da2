//! [`ClusterState`] as the context of decisions. It corresponds to the server's live cluster, which reads its cache and the API
//! server.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::Value;
use taskgate_api::{
    WorkItem,
    kelos_fields::KelosFields,
    kueue::{ConfigRef, Settings},
    metadata::{Metadata, Owner},
};
use taskgate_policy::{ItemIdentity, KueueInfo, PolicySet, Right, SpawnerInfo, Workspace};
use taskgate_webhook::{
    AccessDecision, ClusterContext, ClusterReadError, ItemState, NamespaceLabels, ReviewedTask, check_access,
};

use super::{ClusterState, key};

impl ClusterContext for ClusterState {
    fn is_ready(&self) -> bool {
        true
    }

    fn policies(&self) -> Arc<PolicySet> {
        self.policies.clone()
    }

    fn kelos_fields(&self) -> KelosFields {
        self.kelos_fields.clone().unwrap_or_default()
    }

    async fn namespace_labels(&self, namespace: &str) -> Result<NamespaceLabels, ClusterReadError> {
        Ok(Arc::new(ClusterState::namespace_labels(self, namespace)))
    }

    async fn owner_task(&self, namespace: &str, owner: &Owner<'_>) -> Result<Option<Value>, ClusterReadError> {
        let task = self.tasks.get(&key(namespace, owner.name));
        Ok(task.filter(|task| Metadata::of(task).uid() == Some(owner.uid)).cloned())
    }

    async fn spawner(&self, namespace: &str, name: &str) -> Result<Option<Arc<SpawnerInfo>>, ClusterReadError> {
        Ok(self.spawners.get(&key(namespace, name)).cloned())
    }

    async fn workspace(&self, namespace: &str, name: &str) -> Workspace {
        match self.workspaces.get(&key(namespace, name)) {
            Some(workspace) => Workspace::Present(workspace.clone()),
            None if self.options.complete => Workspace::Absent,
            None => Workspace::Unknown,
        }
    }

    /// Kueue as the server's cache has it. Unless the objects are complete, a missing one may exist.
    fn kueue(&self, namespace: &str, namespace_labels: &BTreeMap<String, String>) -> KueueInfo {
        let default = || Settings::of_namespace(&ConfigRef::default().namespace);
        let settings = self.kueue_settings.clone().unwrap_or_else(default);
        let complete = self.options.complete;
        let known = complete && self.has_kueue;
        let queues = || self.queues.get(namespace).cloned().unwrap_or_default();
        KueueInfo {
            manages_namespace: Some(settings.manages(namespace_labels)),
            config_unreadable: self.kueue_config_unreadable,
            installed: (self.has_kueue || complete).then_some(self.has_kueue),
            local_queues: known.then(queues),
            priority_classes: known.then(|| self.priority_classes.clone()),
        }
    }

    /// Without Tasks: the stored item is as easily read.
    fn known_item(&self, reviewed: &ReviewedTask<'_>, item: &ItemIdentity) -> ItemState {
        // The server's cache skips one that cannot be read.
        let found = self.work_items.get(&key(reviewed.namespace, &item.work_item_name()));
        let found = found.and_then(|found| found.as_ref().ok());
        ItemState {
            work_item: found.filter(|found| found.spec.key == item.key).cloned(),
            tasks: None,
        }
    }

    async fn stored_item(
        &self,
        reviewed: &ReviewedTask<'_>,
        item: &ItemIdentity,
    ) -> Result<ItemState, ClusterReadError> {
        let (namespace, name) = (reviewed.namespace, item.work_item_name());
        let work_item = match self.work_items.get(&key(namespace, &name)) {
            None => None,
            Some(Ok(found)) => Some(found),
            Some(Err(error)) => {
                return Err(ClusterReadError {
                    kind: "WorkItem",
                    namespace: namespace.to_owned(),
                    name,
                    reason: error.clone(),
                    source: None,
                });
            }
        };
        let stored = self.tasks_of.get(&key(namespace, &name)).cloned().unwrap_or_default();
        let is_current =
            |found: &&Arc<WorkItem>| found.spec.key == item.key && found.metadata.deletion_timestamp.is_none();
        Ok(ItemState {
            work_item: work_item.filter(is_current).cloned(),
            tasks: Some(reviewed.competing(stored, &HashSet::new())),
        })
    }

    async fn own_user(&self) -> Result<Option<String>, ClusterReadError> {
        Ok(self.options.own_user.clone())
    }

    async fn check_access(&self, user: &UserInfo, right: &Right) -> Result<AccessDecision, ClusterReadError> {
        match &self.options.permissions {
            Some(client) => check_access(client, user, right).await,
            None => Ok(AccessDecision {
                allowed: true,
                reason: String::new(),
            }),
        }
    }
}
