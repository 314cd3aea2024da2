//! The live cluster as the context of a decision: from the cache first, then by live reads.
//!
//! Imports `admission` (the trait) and `rate_limiter`. Called by `server`, which hands it to the router; `admin` creates
//! access reviews through it.

mod kueue;
mod live;

use std::{sync::Arc, time::Duration};

use kube::Client;
use serde_json::Value;
use taskgate_api::{WorkItemStatus, kueue::ConfigRef, metadata::Owner};
use taskgate_cache::ClusterCache;
use taskgate_policy::{ItemIdentity, KueueInfo, PolicySet, Right, SpawnerInfo, Workspace};
use tokio::sync::OnceCell;
use tracing::debug;

use crate::{
    admission::{
        AccessDecision, ClusterContext, ClusterReadError, CompetingTasks, NamespaceLabels, QueueLookup, ReviewedTask,
        UserInfo,
    },
    rate_limiter::RateLimiter,
};
use kueue::KueueReader;
use live::LiveReader;
pub use live::check_access;
pub(crate) use live::create_access_review;

/// How often taskgate creates a SubjectAccessReview: any caller that reaches the port can cause one, and sees the answer.
const ACCESS_REVIEW_EVERY: Duration = Duration::from_millis(50);
const ACCESS_REVIEW_BURST: u32 = 200;

/// The live cluster.
pub(crate) struct LiveCluster {
    cache: Arc<ClusterCache>,
    live: LiveReader,
    kueue: KueueReader,
    own_user: OnceCell<Option<String>>,
    access_reviews: RateLimiter,
}

impl LiveCluster {
    /// Reads from `cache`, and through `client` where it does not suffice; `kueue` locates Kueue's configuration.
    pub(crate) fn new(cache: Arc<ClusterCache>, client: Client, kueue: Option<ConfigRef>) -> Self {
        Self {
            cache,
            live: LiveReader::new(client.clone()),
            kueue: KueueReader::new(client, kueue),
            own_user: OnceCell::new(),
            access_reviews: RateLimiter::new(ACCESS_REVIEW_EVERY, ACCESS_REVIEW_BURST),
        }
    }
}

impl ClusterContext for LiveCluster {
    fn is_ready(&self) -> bool {
        self.cache.is_synced()
    }

    fn policies(&self) -> Arc<PolicySet> {
        self.cache.policies()
    }

    async fn namespace_labels(&self, namespace: &str) -> Result<NamespaceLabels, ClusterReadError> {
        if let Some(labels) = self.cache.namespace_labels(namespace) {
            return Ok(labels);
        }
        let labels = self.live.namespace_labels(namespace).await?;
        Ok(Arc::new(labels.unwrap_or_default()))
    }

    async fn owner_task(&self, namespace: &str, owner: &Owner<'_>) -> Result<Option<Value>, ClusterReadError> {
        self.live.owner_task(namespace, owner).await
    }

    async fn spawner(&self, namespace: &str, name: &str) -> Result<Option<Arc<SpawnerInfo>>, ClusterReadError> {
        match self.cache.spawners().get(namespace, name) {
            Some(spawner) => Ok(Some(Arc::clone(&spawner.info))),
            None => self.live.spawner(namespace, name).await,
        }
    }

    async fn workspace(&self, namespace: &str, name: &str) -> Workspace {
        if let Some(workspace) = self.cache.workspaces().get(namespace, name) {
            return Workspace::Present(workspace);
        }
        match self.live.workspace(namespace, name).await {
            Ok(Some(workspace)) => Workspace::Present(workspace),
            Ok(None) => Workspace::Absent,
            Err(error) => {
                debug!(%error, "cannot read a Workspace");
                Workspace::Unknown
            }
        }
    }

    async fn kueue(&self, lookup: QueueLookup<'_>) -> KueueInfo {
        self.kueue.info(lookup).await
    }

    /// Consistent where the decision is enforced: a denial for a failure that was reset a moment ago costs a spawner its cycle,
    /// and an admission that misses the last failure breaks the limit (C16).
    async fn work_item_status(
        &self,
        namespace: &str,
        item: &ItemIdentity,
        consistent: bool,
    ) -> Result<Option<Arc<WorkItemStatus>>, ClusterReadError> {
        let name = item.work_item_name();
        if consistent {
            self.live.work_item_status(namespace, &name, &item.key).await
        } else {
            let cached = self.cache.work_items().get(namespace, &name);
            let cached = cached.filter(|cached| cached.key() == item.key);
            Ok(cached.map(|cached| Arc::new(cached.status().unwrap_or_default())))
        }
    }

    async fn competing_tasks(
        &self,
        reviewed: &ReviewedTask<'_>,
        item: &ItemIdentity,
    ) -> Result<Option<CompetingTasks>, ClusterReadError> {
        let work_item = item.work_item_name();
        let stored = self.live.tasks_of(reviewed.namespace, &work_item).await?;
        let later = CompetingTasks::later(&stored, reviewed);
        let running = self.live.tasks_with_jobs(reviewed.namespace, &later).await?;
        Ok(Some(CompetingTasks::among(stored, reviewed, &running)))
    }

    async fn own_user(&self) -> Result<Option<String>, ClusterReadError> {
        let user = self.own_user.get_or_try_init(|| self.live.own_user()).await?;
        Ok(user.clone())
    }

    async fn check_access(&self, user: &UserInfo, right: &Right) -> Result<AccessDecision, ClusterReadError> {
        if !self.access_reviews.try_acquire() {
            return Err(ClusterReadError {
                kind: "SubjectAccessReview",
                namespace: String::new(),
                name: String::new(),
                reason: "taskgate checks at most 20 rights per second: try again".to_owned(),
                source: None,
            });
        }
        self.live.check_access(user, right).await
    }
}
