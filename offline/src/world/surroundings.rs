//! The world as the cluster of a request. Where the cluster's (`taskgate_webhook::Cluster`) reads a cache or asks the
//! API server, this one looks into its tables.

use std::{collections::HashSet, sync::Arc};

use serde_json::Value;
use taskgate_api::{
    WorkItemStatus,
    metadata::{Metadata, Owner},
};
use taskgate_policy::{ItemIdentity, KueueFacts, PolicySet, Right, SpawnerFacts, Workspace};
use taskgate_webhook::{ReviewedTask, ClusterReadError, Labels, AccessDecision, QueueLookup, CompetingTasks, ClusterContext, UserInfo, may};

use super::World;

impl ClusterContext for World {
    fn is_ready(&self) -> bool {
        true
    }

    fn policies(&self) -> Arc<PolicySet> {
        self.policies.clone()
    }

    async fn namespace_labels(&self, namespace: &str) -> Result<Labels, ClusterReadError> {
        Ok(Arc::new(World::namespace_labels(self, namespace)))
    }

    async fn owner_task(&self, namespace: &str, owner: &Owner<'_>) -> Result<Option<Value>, ClusterReadError> {
        let task = self.tasks.get(namespace, owner.name);
        Ok(task.filter(|task| Metadata::of(task).uid() == Some(owner.uid)).cloned())
    }

    async fn spawner(&self, namespace: &str, name: &str) -> Result<Option<Arc<SpawnerFacts>>, ClusterReadError> {
        Ok(self.spawners.get(namespace, name).cloned())
    }

    async fn workspace(&self, namespace: &str, name: &str) -> Workspace {
        match self.workspaces.get(namespace, name) {
            Some(workspace) => Workspace::Present(workspace.clone()),
            None if self.knowledge.complete => Workspace::Absent,
            None => Workspace::Unknown,
        }
    }

    async fn kueue(&self, question: QueueLookup<'_>) -> KueueFacts {
        self.kueue.facts(question, self.knowledge.complete)
    }

    async fn memory(
        &self,
        namespace: &str,
        item: &ItemIdentity,
        fresh: bool,
    ) -> Result<Option<Arc<WorkItemStatus>>, ClusterReadError> {
        let name = item.work_item_name();
        match self.work_items.get(namespace, &name) {
            None => Ok(None),
            Some(Ok(found)) => {
                let gone = fresh && found.metadata.deletion_timestamp.is_some();
                let found = Some(found).filter(|found| found.spec.key == item.key && !gone);
                Ok(found.map(|found| Arc::new(found.status.clone().unwrap_or_default())))
            }
            // A cache leaves it out; a fresh read fails.
            Some(Err(_)) if !fresh => Ok(None),
            Some(Err(error)) => Err(ClusterReadError {
                kind: "WorkItem",
                namespace: namespace.to_owned(),
                name,
                reason: error.clone(),
                source: None,
            }),
        }
    }

    async fn competing_tasks(&self, ask: &ReviewedTask<'_>, item: &ItemIdentity) -> Result<Option<CompetingTasks>, ClusterReadError> {
        let stored = self.tasks_of.get(ask.namespace, &item.work_item_name());
        Ok(Some(CompetingTasks::among(
            stored.cloned().unwrap_or_default(),
            ask,
            &HashSet::new(),
        )))
    }

    async fn own_user(&self) -> Result<Option<String>, ClusterReadError> {
        Ok(self.knowledge.own_user.clone())
    }

    async fn may(&self, user: &UserInfo, right: &Right) -> Result<AccessDecision, ClusterReadError> {
        match &self.knowledge.permissions {
            Some(client) => may(client.clone(), user, right).await,
            None => Ok(AccessDecision {
                allowed: true,
                why: String::new(),
            }),
        }
    }
}
