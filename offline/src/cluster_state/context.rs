//! [`ClusterState`] as the context of decisions. It corresponds to the server's live cluster, which reads its cache and the API
//! server.

use std::{collections::HashSet, sync::Arc};

use serde_json::Value;
use taskgate_api::{
    WorkItemStatus,
    kueue::{ConfigRef, Settings},
    metadata::{Metadata, Owner},
};
use taskgate_policy::{ItemIdentity, KueueInfo, PolicySet, Right, SpawnerInfo, Workspace};
use taskgate_webhook::{
    AccessDecision, ClusterContext, ClusterReadError, CompetingTasks, NamespaceLabels, QueueLookup, ReviewedTask,
    UserInfo, check_access,
};

use super::{ClusterState, key};

impl ClusterContext for ClusterState {
    fn is_ready(&self) -> bool {
        true
    }

    fn policies(&self) -> Arc<PolicySet> {
        self.policies.clone()
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

    /// The result that the server gets by reading the API server. Unless the objects are complete, a missing one is unknown.
    async fn kueue(&self, lookup: QueueLookup<'_>) -> KueueInfo {
        let default = || Settings::of_namespace(&ConfigRef::default().namespace);
        let settings = self.kueue_settings.clone().unwrap_or_else(default);
        let manages = settings.manages(lookup.namespace_labels);
        let mut info = KueueInfo {
            manages_namespace: Some(manages),
            ..KueueInfo::default()
        };
        let complete = self.options.complete;
        let Some((queue, class)) = lookup.names.filter(|_| manages) else {
            return info;
        };
        if !self.has_kueue {
            info.installed = complete.then_some(false);
            return info;
        }
        info.installed = Some(true);
        let known = |found: bool| (found || complete).then_some(found);
        info.local_queue = known(self.queues.contains(&key(lookup.namespace, queue)));
        info.priority_class = class.and_then(|class| known(self.priority_classes.contains(class)));
        info
    }

    async fn work_item_status(
        &self,
        namespace: &str,
        item: &ItemIdentity,
        consistent: bool,
    ) -> Result<Option<Arc<WorkItemStatus>>, ClusterReadError> {
        let name = item.work_item_name();
        match self.work_items.get(&key(namespace, &name)) {
            None => Ok(None),
            Some(Ok(found)) => {
                let deleting = consistent && found.metadata.deletion_timestamp.is_some();
                let found = Some(found).filter(|found| found.spec.key == item.key && !deleting);
                Ok(found.map(|found| Arc::new(found.status.clone().unwrap_or_default())))
            }
            // The server's cache skips it; a live read fails.
            Some(Err(_)) if !consistent => Ok(None),
            Some(Err(error)) => Err(ClusterReadError {
                kind: "WorkItem",
                namespace: namespace.to_owned(),
                name,
                reason: error.clone(),
                source: None,
            }),
        }
    }

    async fn competing_tasks(
        &self,
        reviewed: &ReviewedTask<'_>,
        item: &ItemIdentity,
    ) -> Result<Option<CompetingTasks>, ClusterReadError> {
        let stored = self.tasks_of.get(&key(reviewed.namespace, &item.work_item_name()));
        Ok(Some(CompetingTasks::among(
            stored.cloned().unwrap_or_default(),
            reviewed,
            &HashSet::new(),
        )))
    }

    async fn own_user(&self) -> Result<Option<String>, ClusterReadError> {
        Ok(self.options.own_user.clone())
    }

    async fn check_access(&self, user: &UserInfo, right: &Right) -> Result<AccessDecision, ClusterReadError> {
        match &self.options.permissions {
            Some(client) => check_access(client.clone(), user, right).await,
            None => Ok(AccessDecision {
                allowed: true,
                reason: String::new(),
            }),
        }
    }
}
