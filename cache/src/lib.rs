//! The cluster cache: what taskgate knows of the cluster, once per process.
//!
//! One watch per kind fills one [`Store`] per kind, with the fields that admission and the controller need, trimmed as the objects
//! arrive (C19). A review rarely asks the API server, and a replica that becomes the leader has what it needs at once.
//!
//! ```text
//! watch       list, watch, and list again after every error
//!  └─ trim, work_item   the fields that are kept      policies   compiled once, for the whole process
//!      └─ store   look-ups by key, state of the watch, subscriptions
//! ```
//!
//! Readers get a value by its key, or follow all changes of a kind ([`Store::subscribe`]). Whether the cache is filled, and since
//! when it is stale, is its own property ([`ClusterCache::is_synced`], [`ClusterCache::status`]). It is always some moments behind:
//! where that matters, read the API server.
//!
//! Imports `taskgate-api`, `taskgate-policy`, and of `taskgate-certs` the backoff. Called by `taskgate-webhook`, whose server runs
//! the watches, `taskgate-controller`, and the binary, which hands the cache from one to the other.

mod blocking;
mod kelos;
mod policies;
mod store;
mod trim;
mod watch;
mod work_item;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource as _,
    api::{ApiResource, DynamicObject, PartialObjectMeta},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};
use taskgate_api::{ClusterTaskPolicy, TaskPolicy, kelos::TASKS};
use taskgate_policy::{KnownPolicies, PolicySet, WorkspaceInfo};
use tokio::{sync::watch::Receiver, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use blocking::block_in_place;
pub use kelos::{kelos_resource, served_version};
pub use policies::StoredPolicy;
pub use store::{NamespacedName, ObjectChange, Store, Subscription};
pub use trim::{CachedSpawner, labels, only_fields, spawner_info, trim_task, workspace_info};
pub use work_item::CachedWorkItem;

use policies::PolicyStore;
use watch::{fixed, follow, of_kelos};
use work_item::WatchedWorkItem;

/// The trimmed objects of all kinds that taskgate watches for every feature.
#[derive(Debug)]
pub struct ClusterCache {
    policies: PolicyStore,
    namespaces: Store<BTreeMap<String, String>>,
    spawners: Store<CachedSpawner>,
    workspaces: Store<WorkspaceInfo>,
    work_items: Store<CachedWorkItem>,
    tasks: Store<DynamicObject>,
}

/// The state of one kind's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    /// The kind, in the plural of the API.
    pub kind: &'static str,
    /// The number of objects.
    pub objects: usize,
    /// Whether it was filled once, or its kind is not installed.
    pub synced: bool,
    /// How long it has been without a working watch.
    pub age: Duration,
}

impl ClusterCache {
    /// An empty cache.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            policies: PolicyStore::new(),
            namespaces: Store::new("namespaces"),
            spawners: Store::new("taskspawners"),
            workspaces: Store::new("workspaces"),
            work_items: Store::new("workitems"),
            tasks: Store::new(TASKS),
        })
    }

    /// Follows the API server until `shutdown`: one watch per kind, each a task of the returned set.
    ///
    /// RBAC: `list` and `watch` on all seven kinds, cluster-wide.
    pub fn follow(self: &Arc<Self>, client: &Client, shutdown: &CancellationToken) -> JoinSet<()> {
        let mut watches = JoinSet::new();
        self.follow_policies(client, shutdown, &mut watches);
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = fixed(Api::<WatchedWorkItem>::all(client.clone()));
        watches.spawn(async move { follow(api, &cache.work_items, CachedWorkItem::of, || false, end).await });
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = fixed(Api::<PartialObjectMeta<Namespace>>::all(client.clone()));
        watches.spawn(async move {
            let trim = |object: PartialObjectMeta<Namespace>| Some(labels(object.meta()));
            follow(api, &cache.namespaces, trim, || false, end).await;
        });
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = of_kelos(client.clone(), "TaskSpawner", "taskspawners");
        watches.spawn(async move {
            let trim = |object| Some(trim::spawner(object));
            follow(api, &cache.spawners, trim, || false, end).await;
        });
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = of_kelos(client.clone(), "Workspace", "workspaces");
        watches.spawn(async move {
            let trim = |object| Some(workspace_info(&object));
            follow(api, &cache.workspaces, trim, || false, end).await;
        });
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = of_kelos(client.clone(), "Task", TASKS);
        watches.spawn(async move {
            let trim = |mut object| {
                trim_task(&mut object);
                Some(object)
            };
            follow(api, &cache.tasks, trim, || false, end).await;
        });
        watches
    }

    fn follow_policies(self: &Arc<Self>, client: &Client, shutdown: &CancellationToken, watches: &mut JoinSet<()>) {
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = fixed(Api::all_with(client.clone(), &ApiResource::erase::<TaskPolicy>(&())));
        watches.spawn(async move {
            let policies = &cache.policies;
            let compile = |object| Some(policies.compile_namespaced(object));
            follow(api, &policies.namespaced, compile, || policies.rebuild(), end).await;
        });
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = fixed(Api::all_with(
            client.clone(),
            &ApiResource::erase::<ClusterTaskPolicy>(&()),
        ));
        watches.spawn(async move {
            let policies = &cache.policies;
            let compile = |object| Some(policies.compile_cluster(object));
            follow(api, &policies.cluster, compile, || policies.rebuild(), end).await;
        });
    }

    /// Whether admission can decide: every store that it reads was filled once, or its kind is not installed.
    pub fn is_synced(&self) -> bool {
        self.known_policies().borrow().complete && self.unsynced().next().is_none()
    }

    /// The kinds that admission still waits for. It reads no Tasks from the cache.
    pub fn unsynced(&self) -> impl Iterator<Item = &'static str> {
        let waits = |cache: &CacheStatus| !cache.synced && cache.kind != TASKS;
        self.status().into_iter().filter(waits).map(|cache| cache.kind)
    }

    /// Waits until every store is filled and its watch works, or its kind is not installed. Not for Workspaces, which only templates
    /// use at admission: a Workspace that is missing there is read.
    pub async fn wait_until_current(&self) {
        self.policies.namespaced.wait_until_current().await;
        self.policies.cluster.wait_until_current().await;
        // An error means that the cache is dropped, and then this is dropped as well.
        let _ = self.known_policies().wait_for(|known| known.complete).await;
        self.namespaces.wait_until_current().await;
        self.work_items.wait_until_current().await;
        self.spawners.wait_until_current().await;
        self.tasks.wait_until_current().await;
    }

    /// The state of each kind's store.
    pub fn status(&self) -> [CacheStatus; 7] {
        [
            self.policies.namespaced.status(),
            self.policies.cluster.status(),
            self.work_items.status(),
            self.tasks.status(),
            self.spawners.status(),
            self.workspaces.status(),
            self.namespaces.status(),
        ]
    }

    /// How many stored policies cannot be applied.
    pub fn rejected_policies(&self) -> usize {
        self.policies.rejected()
    }

    /// The policies that are in force now.
    pub fn policies(&self) -> Arc<PolicySet> {
        Arc::clone(&self.policies.known().borrow().set)
    }

    /// The stored policies of both kinds as one value. A receiver is notified when a policy is created, deleted or gets a new
    /// generation, but not when only its status changes.
    pub fn known_policies(&self) -> Receiver<Arc<KnownPolicies>> {
        self.policies.known()
    }

    /// Each `TaskPolicy`, with its status.
    pub fn task_policies(&self) -> &Store<StoredPolicy> {
        &self.policies.namespaced
    }

    /// Each `ClusterTaskPolicy`, with its status.
    pub fn cluster_task_policies(&self) -> &Store<StoredPolicy> {
        &self.policies.cluster
    }

    /// The labels of each namespace.
    pub fn namespaces(&self) -> &Store<BTreeMap<String, String>> {
        &self.namespaces
    }

    /// The labels of a namespace; `None` when the cache does not have it.
    pub fn namespace_labels(&self, namespace: &str) -> Option<Arc<BTreeMap<String, String>>> {
        self.namespaces.get("", namespace)
    }

    /// The `TaskSpawners` of Kelos.
    pub fn spawners(&self) -> &Store<CachedSpawner> {
        &self.spawners
    }

    /// The `Workspaces` of Kelos.
    pub fn workspaces(&self) -> &Store<WorkspaceInfo> {
        &self.workspaces
    }

    /// The `WorkItems`, without the fields that only people read, and without what a retry restores.
    pub fn work_items(&self) -> &Store<CachedWorkItem> {
        &self.work_items
    }

    /// The Tasks of Kelos, trimmed by [`trim_task`].
    pub fn tasks(&self) -> &Store<DynamicObject> {
        &self.tasks
    }
}

/// Collects the state of the cache when metrics are scraped.
#[derive(Debug)]
pub struct CacheCollector(pub Arc<ClusterCache>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    kind: &'static str,
}

impl Collector for CacheCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let caches = self.0.status();
        let mut family = encoder.encode_descriptor("cache_objects", "Objects in a cache", None, MetricType::Gauge)?;
        for cache in &caches {
            let objects = ConstGauge::new(i64::try_from(cache.objects).unwrap_or(i64::MAX));
            objects.encode(family.encode_family(&CacheLabels { kind: cache.kind })?)?;
        }
        let mut family = encoder.encode_descriptor(
            "cache_age_seconds",
            "How long a cache has been without a working watch; 0 while it follows the API server",
            None,
            MetricType::Gauge,
        )?;
        for cache in &caches {
            ConstGauge::new(cache.age.as_secs_f64())
                .encode(family.encode_family(&CacheLabels { kind: cache.kind })?)?;
        }
        let rejected = ConstGauge::new(i64::try_from(self.0.rejected_policies()).unwrap_or(i64::MAX));
        let encoder = encoder.encode_descriptor(
            "policies_rejected",
            "Stored policies that cannot be applied and are left out",
            None,
            rejected.metric_type(),
        )?;
        rejected.encode(encoder)
    }
}
