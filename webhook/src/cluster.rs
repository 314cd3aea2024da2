//! The cluster as the surroundings of a request: caches first, then fresh reads.

use std::{sync::Arc, time::Duration};

use kube::Client;
use serde_json::Value;
use taskgate_api::{WorkItemStatus, kueue::ConfigRef, metadata::Owner};
use taskgate_policy::{ItemIdentity, KueueInfo, PolicySet, Right, SpawnerInfo, Workspace};
use tokio::sync::OnceCell;
use tracing::debug;

use crate::{
    caches::Caches,
    cancellation::Permission,
    facts::{Ask, FactError, Labels, Rivals, Surroundings},
    fresh::Fresh,
    kueue::{Kueue, QueueQuestion},
    rate::Rate,
    review::UserInfo,
};

/// How often the API server is asked what a user may do: any caller that reaches the port can make taskgate ask, and reads the
/// answer.
const PERMISSIONS_EVERY: Duration = Duration::from_millis(50);
const PERMISSIONS_AT_ONCE: u32 = 200;

/// What is known of the cluster.
pub struct Cluster {
    caches: Arc<Caches>,
    fresh: Fresh,
    kueue: Kueue,
    own_user: OnceCell<Option<String>>,
    permissions: Rate,
}

impl Cluster {
    /// Reads from `caches`, and through `client` where they do not suffice; `kueue` is where Kueue's configuration is.
    pub fn new(caches: Arc<Caches>, client: Client, kueue: Option<ConfigRef>) -> Self {
        Self {
            caches,
            fresh: Fresh::new(client.clone()),
            kueue: Kueue::new(client, kueue),
            own_user: OnceCell::new(),
            permissions: Rate::new(PERMISSIONS_EVERY, PERMISSIONS_AT_ONCE),
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

    async fn spawner(&self, namespace: &str, name: &str) -> Result<Option<Arc<SpawnerInfo>>, FactError> {
        match self.caches.spawner(namespace, name) {
            Some(spawner) => Ok(Some(spawner)),
            None => self.fresh.spawner(namespace, name).await,
        }
    }

    async fn workspace(&self, namespace: &str, name: &str) -> Workspace {
        if let Some(workspace) = self.caches.workspace(namespace, name) {
            return Workspace::Present(workspace);
        }
        match self.fresh.workspace(namespace, name).await {
            Ok(Some(workspace)) => Workspace::Present(workspace),
            Ok(None) => Workspace::Absent,
            Err(error) => {
                debug!(%error, "whether the Workspace exists is not known");
                Workspace::Unknown
            }
        }
    }

    async fn kueue(&self, question: QueueQuestion<'_>) -> KueueInfo {
        self.kueue.facts(question).await
    }

    /// Fresh where the verdict is enforced: a denial that rests on a failure that was forgotten a moment ago costs a spawner
    /// its cycle, and a pass that does not see the last failure breaks the limit (C16).
    async fn memory(
        &self,
        namespace: &str,
        item: &ItemIdentity,
        fresh: bool,
    ) -> Result<Option<Arc<WorkItemStatus>>, FactError> {
        let name = item.work_item_name();
        if fresh {
            self.fresh.memory(namespace, &name, &item.key).await
        } else {
            Ok(self.caches.memory(namespace, &name, &item.key))
        }
    }

    async fn rivals(&self, ask: &Ask<'_>, item: &ItemIdentity) -> Result<Option<Rivals>, FactError> {
        let work_item = item.work_item_name();
        let stored = self.fresh.tasks_of(ask.namespace, &work_item).await?;
        let after = Rivals::after(&stored, ask);
        let running = self.fresh.tasks_with_jobs(ask.namespace, &after).await?;
        Ok(Some(Rivals::among(stored, ask, &running)))
    }

    async fn own_user(&self) -> Result<Option<String>, FactError> {
        let user = self.own_user.get_or_try_init(|| self.fresh.own_user()).await?;
        Ok(user.clone())
    }

    async fn may(&self, user: &UserInfo, right: &Right) -> Result<Permission, FactError> {
        if !self.permissions.take() {
            return Err(FactError {
                kind: "SubjectAccessReview",
                namespace: String::new(),
                name: String::new(),
                reason: "taskgate asks the API server about rights 20 times in a second at most: try again".to_owned(),
                source: None,
            });
        }
        self.fresh.may(user, right).await
    }
}
