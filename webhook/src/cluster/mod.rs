//! The live cluster as the context of a decision: from the cache first, then by live reads.
//!
//! Imports `admission` (the trait) and `rate_limiter`. Called by `server`, which hands it to the router; `admin` creates
//! access reviews through it.

mod live;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::UserInfo;
use kube::{Client, ResourceExt, api::DynamicObject};
use serde_json::Value;
use taskgate_api::{
    kelos,
    kelos_fields::{KelosFields, KelosWriters},
    metadata::{Metadata, Owner},
};
use taskgate_cache::{ClusterCache, spawner_info, workspace_info};
use taskgate_policy::{ItemIdentity, KueueInfo, PolicySet, Right, SpawnerInfo, TaskState, Workspace};
use tokio::sync::OnceCell;
use tracing::debug;

use crate::{
    admission::{AccessDecision, ClusterContext, ClusterReadError, ItemState, NamespaceLabels, ReviewedTask},
    rate_limiter::RateLimiter,
};
use live::NEWEST;
pub use live::check_access;
pub(crate) use live::create_access_review;

/// How often taskgate creates a SubjectAccessReview: any caller that reaches the port can cause one, and sees the answer.
const ACCESS_REVIEW_EVERY: Duration = Duration::from_millis(50);
const ACCESS_REVIEW_BURST: u32 = 200;

/// The live cluster.
pub(crate) struct LiveCluster {
    cache: Arc<ClusterCache>,
    client: Client,
    kelos_writers: KelosWriters,
    own_user: OnceCell<Option<String>>,
    access_reviews: RateLimiter,
}

impl LiveCluster {
    /// Reads from `cache`, and through `client` where it does not suffice.
    pub(crate) fn new(cache: Arc<ClusterCache>, client: Client, kelos_writers: KelosWriters) -> Self {
        Self {
            cache,
            client,
            kelos_writers,
            own_user: OnceCell::new(),
            access_reviews: RateLimiter::new(ACCESS_REVIEW_EVERY, ACCESS_REVIEW_BURST),
        }
    }

    fn cached_owner(&self, namespace: &str, name: &str, uid: &str) -> Option<Arc<DynamicObject>> {
        let task = self.cache.tasks().get(namespace, name);
        task.filter(|task| task.metadata.uid.as_deref() == Some(uid))
    }

    /// Whether the cache has all Tasks that compete with the reviewed one.
    ///
    /// A Job competes with the Tasks that were created before its own. The watch shows Tasks in the order of their creation: with
    /// the Job's Task in the cache, it has shown all earlier ones. A Task of the same second that was created later can sort before
    /// it ([`TaskState::is_before`]) and be missing here; its own review then finds the Job of this one
    /// ([`ReviewedTask::competing`]), unless the cache is further behind than Kelos takes from a Task to its Job.
    ///
    /// For a Task that is created there is no such order: of Tasks that are created together, no more Jobs run than the limit allows.
    fn has_competing(&self, reviewed: &ReviewedTask<'_>) -> bool {
        let has_owner = || {
            let metadata = Metadata::of(reviewed.task);
            let (name, uid) = (metadata.name()?, metadata.uid()?);
            self.cached_owner(reviewed.namespace, name, uid)
        };
        self.cache.tasks().is_current() && (!reviewed.for_job || has_owner().is_some())
    }
}

impl ClusterContext for LiveCluster {
    fn is_ready(&self) -> bool {
        self.cache.is_synced()
    }

    fn now(&self) -> Timestamp {
        self.cache.clock().now()
    }

    fn policies(&self) -> Arc<PolicySet> {
        self.cache.policies()
    }

    async fn namespace_labels(&self, namespace: &str) -> Result<NamespaceLabels, ClusterReadError> {
        match self.cache.namespace_labels(namespace) {
            Some(labels) => Ok(labels),
            None => live::namespace_labels(&self.client, namespace).await,
        }
    }

    /// From the API server in the version that the reference states.
    async fn owner_task(&self, namespace: &str, owner: &Owner<'_>) -> Result<Option<Value>, ClusterReadError> {
        if let Some(task) = self.cached_owner(namespace, owner.name, owner.uid) {
            return Ok(serde_json::to_value(&*task).ok());
        }
        let stated = owner.api_version.split_once('/').map(|(_, version)| version);
        let version = stated.filter(|version| kelos::TASK_VERSIONS.contains(version));
        let kind = ("Task", kelos::TASKS);
        let found = live::kelos_object(&self.client, version.unwrap_or(NEWEST), kind, namespace, owner.name).await?;
        let found = found.filter(|task| task.metadata.uid.as_deref() == Some(owner.uid));
        Ok(found.and_then(|task| serde_json::to_value(task).ok()))
    }

    async fn spawner(&self, namespace: &str, name: &str) -> Result<Option<Arc<SpawnerInfo>>, ClusterReadError> {
        if let Some(spawner) = self.cache.spawners().get(namespace, name) {
            return Ok(Some(Arc::clone(&spawner.info)));
        }
        let kind = ("TaskSpawner", "taskspawners");
        let found = live::kelos_object(&self.client, NEWEST, kind, namespace, name).await?;
        Ok(found.map(|spawner| Arc::new(spawner_info(&spawner))))
    }

    async fn workspace(&self, namespace: &str, name: &str) -> Workspace {
        if let Some(workspace) = self.cache.workspaces().get(namespace, name) {
            return Workspace::Present(workspace);
        }
        let kind = ("Workspace", "workspaces");
        match live::kelos_object(&self.client, NEWEST, kind, namespace, name).await {
            Ok(Some(workspace)) => Workspace::Present(Arc::new(workspace_info(&workspace))),
            Ok(None) => Workspace::Absent,
            Err(error) => {
                debug!(%error, "cannot read a Workspace");
                Workspace::Unknown
            }
        }
    }

    fn kueue(&self, namespace: &str, namespace_labels: &BTreeMap<String, String>) -> KueueInfo {
        match self.cache.kueue() {
            Some(kueue) => kueue.info(namespace, namespace_labels),
            None => KueueInfo {
                manages_namespace: Some(false),
                ..KueueInfo::default()
            },
        }
    }

    fn known_item(&self, reviewed: &ReviewedTask<'_>, item: &ItemIdentity) -> ItemState {
        let (namespace, name) = (reviewed.namespace, item.work_item_name());
        let work_item = self.cache.work_items().get(namespace, &name);
        let tasks = self.has_competing(reviewed).then(|| {
            let own = Metadata::of(reviewed.task).uid();
            let mut tasks = self.cache.unsettled_tasks_of_item(namespace, &name)?;
            tasks.retain(|task| Some(task.uid.as_str()) != own);
            Some(tasks)
        });
        ItemState {
            work_item: work_item
                .filter(|work_item| work_item.key() == item.key)
                .map(|work_item| Arc::new(work_item.expand())),
            tasks: tasks.flatten(),
        }
    }

    /// Read from the API server: a denial for a failure that was reset a moment ago costs a spawner its cycle, and an admission
    /// that misses the last failure breaks the limit (C16).
    ///
    /// The WorkItem is read last: of a Task that ends in between, the end is then in its status.
    async fn stored_item(
        &self,
        reviewed: &ReviewedTask<'_>,
        item: &ItemIdentity,
    ) -> Result<ItemState, ClusterReadError> {
        let (namespace, name) = (reviewed.namespace, item.work_item_name());
        let stored: Vec<TaskState> = if self.has_competing(reviewed) {
            self.cache.tasks_of_item(namespace, &name)
        } else {
            live::tasks_of(&self.client, namespace, &name).await?
        };
        let running = live::tasks_with_jobs(&self.client, namespace, &reviewed.later(&stored)).await?;
        Ok(ItemState {
            work_item: live::work_item(&self.client, namespace, &name, &item.key).await?,
            tasks: Some(reviewed.competing(stored, &running)),
        })
    }

    /// From the API server: the cache may still have a Task that is gone by now.
    async fn spawner_has_task(&self, namespace: &str, spawner: &str, name: &str) -> Result<bool, ClusterReadError> {
        let found = live::kelos_object(&self.client, NEWEST, ("Task", kelos::TASKS), namespace, name).await?;
        let mut owners = found.iter().flat_map(ResourceExt::owner_references);
        Ok(owners.any(|owner| owner.controller == Some(true) && owner.uid == spawner))
    }

    fn kelos_fields(&self) -> KelosFields {
        self.cache.kelos_fields()
    }

    fn kelos_writers(&self) -> KelosWriters {
        self.kelos_writers.clone()
    }

    async fn own_user(&self) -> Result<Option<String>, ClusterReadError> {
        let user = self.own_user.get_or_try_init(|| live::own_user(&self.client)).await?;
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
        check_access(&self.client, user, right).await
    }
}
