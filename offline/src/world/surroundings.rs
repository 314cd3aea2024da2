//! The world as the surroundings of a request. Where the cluster's (`taskgate_webhook::Cluster`) reads a cache or asks the
//! API server, this one looks into its tables.

use std::{collections::HashSet, sync::Arc};

use serde_json::Value;
use taskgate_api::{
    WorkItemStatus,
    metadata::{Metadata, Owner},
};
use taskgate_policy::{ItemIdentity, KueueInfo, PolicySet, Right, SpawnerInfo, Workspace};
use taskgate_webhook::{Ask, FactError, Labels, Permission, QueueQuestion, Rivals, Surroundings, UserInfo, may};

use super::World;

impl Surroundings for World {
    fn is_ready(&self) -> bool {
        true
    }

    fn policies(&self) -> Arc<PolicySet> {
        self.policies.clone()
    }

    async fn namespace_labels(&self, namespace: &str) -> Result<Labels, FactError> {
        Ok(Arc::new(World::namespace_labels(self, namespace)))
    }

    async fn owner_task(&self, namespace: &str, owner: &Owner<'_>) -> Result<Option<Value>, FactError> {
        let task = self.tasks.get(namespace, owner.name);
        Ok(task.filter(|task| Metadata::of(task).uid() == Some(owner.uid)).cloned())
    }

    async fn spawner(&self, namespace: &str, name: &str) -> Result<Option<Arc<SpawnerInfo>>, FactError> {
        Ok(self.spawners.get(namespace, name).cloned())
    }

    async fn workspace(&self, namespace: &str, name: &str) -> Workspace {
        match self.workspaces.get(namespace, name) {
            Some(workspace) => Workspace::Present(workspace.clone()),
            None if self.knowledge.complete => Workspace::Absent,
            None => Workspace::Unknown,
        }
    }

    async fn kueue(&self, question: QueueQuestion<'_>) -> KueueInfo {
        self.kueue.facts(question, self.knowledge.complete)
    }

    async fn memory(
        &self,
        namespace: &str,
        item: &ItemIdentity,
        fresh: bool,
    ) -> Result<Option<Arc<WorkItemStatus>>, FactError> {
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
            Some(Err(error)) => Err(FactError {
                kind: "WorkItem",
                namespace: namespace.to_owned(),
                name,
                reason: error.clone(),
                source: None,
            }),
        }
    }

    async fn rivals(&self, ask: &Ask<'_>, item: &ItemIdentity) -> Result<Option<Rivals>, FactError> {
        let stored = self.tasks_of.get(ask.namespace, &item.work_item_name());
        Ok(Some(Rivals::among(
            stored.cloned().unwrap_or_default(),
            ask,
            &HashSet::new(),
        )))
    }

    async fn own_user(&self) -> Result<Option<String>, FactError> {
        Ok(self.knowledge.own_user.clone())
    }

    async fn may(&self, user: &UserInfo, right: &Right) -> Result<Permission, FactError> {
        match &self.knowledge.permissions {
            Some(client) => may(client.clone(), user, right).await,
            None => Ok(Permission {
                allowed: true,
                why: String::new(),
            }),
        }
    }
}
