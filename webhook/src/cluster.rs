//! The cluster as the surroundings of a request: caches first, then fresh reads.

use std::sync::Arc;

use kube::Client;
use serde_json::Value;
use taskgate_api::{WorkItemStatus, metadata::Owner};
use taskgate_policy::{ItemIdentity, PolicySet, SpawnerFacts};
use tracing::debug;

use crate::{
    caches::Caches,
    facts::{FactError, Labels, Surroundings},
    fresh::Fresh,
};

/// What is known of the cluster.
pub struct Cluster {
    caches: Arc<Caches>,
    fresh: Fresh,
}

impl Cluster {
    /// Reads from `caches`, and through `client` where they do not suffice.
    pub fn new(caches: Arc<Caches>, client: Client) -> Self {
        Self {
            caches,
            fresh: Fresh::new(client),
        }
    }
}

impl Surroundings for Cluster {
    fn is_ready(&self) -> bool {
        self.caches.synced()
    }

    fn policies(&self) -> Arc<PolicySet> {
        self.caches.policies()
    }

    async fn namespace_labels(&self, namespace: &str) -> Result<Labels, FactError> {
        if let Some(labels) = self.caches.namespace_labels(namespace) {
            return Ok(labels);
        }
        let labels = self.fresh.namespace_labels(namespace).await?;
        Ok(Arc::new(labels.unwrap_or_default()))
    }

    async fn owner_task(&self, namespace: &str, owner: &Owner<'_>) -> Result<Option<Value>, FactError> {
        self.fresh.owner_task(namespace, owner).await
    }

    async fn spawner(&self, namespace: &str, name: &str) -> Result<Option<Arc<SpawnerFacts>>, FactError> {
        match self.caches.spawner(namespace, name) {
            Some(spawner) => Ok(Some(spawner)),
            None => self.fresh.spawner(namespace, name).await,
        }
    }

    async fn workspace_known(&self, namespace: &str, name: &str) -> Option<bool> {
        if self.caches.has_workspace(namespace, name) {
            return Some(true);
        }
        let known = self.fresh.has_workspace(namespace, name).await;
        known
            .inspect_err(|error| debug!(%error, "whether the Workspace exists is not known"))
            .ok()
    }

    /// From the cache, which is behind the last recorded failure by as long as a watch event travels.
    async fn memory(&self, namespace: &str, item: &ItemIdentity) -> Result<Option<Arc<WorkItemStatus>>, FactError> {
        Ok(self.caches.memory(namespace, &item.work_item_name(), &item.key))
    }
}
