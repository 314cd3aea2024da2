//! The cluster cache: one watch per kind, trimmed to the fields that decisions need (C19), so that a review rarely asks the API
//! server.
//!
//! Imports `blocking`. Called by `cluster` (admission), `admin` (readiness, metrics) and `server`, which starts the watches and
//! hands the policies to the controller.

mod policies;
mod store;
mod trim;
mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};
use taskgate_api::{ClusterTaskPolicy, TaskPolicy, WorkItem, WorkItemStatus, kelos};
use taskgate_policy::{KnownPolicies, PolicySet, SpawnerInfo, WorkspaceInfo};
use tokio::{sync::watch::Receiver, task::JoinSet};
use tokio_util::sync::CancellationToken;

use policies::PolicyStore;
use store::KindStore;
use trim::CachedWorkItem;
pub(crate) use trim::{labels, spawner_info, workspace_info};
use watch::follow;

/// The caches of all kinds.
#[derive(Debug)]
pub(crate) struct Caches {
    policies: PolicyStore,
    namespaces: KindStore<Arc<BTreeMap<String, String>>>,
    spawners: KindStore<Arc<SpawnerInfo>>,
    workspaces: KindStore<Arc<WorkspaceInfo>>,
    work_items: KindStore<Arc<CachedWorkItem>>,
}

/// The state of one kind's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheStatus {
    /// The kind, in the plural of the API.
    pub(crate) kind: &'static str,
    /// The number of objects.
    pub(crate) objects: usize,
    /// Whether it was filled once, or its kind is not installed.
    pub(crate) synced: bool,
    /// How long it has been without a working watch.
    pub(crate) age: Duration,
}

/// The API resource of a kind of Kelos, which has no Rust type here.
pub(crate) fn kelos_resource(kind: &str, plural: &str) -> ApiResource {
    let [version, ..] = kelos::TASK_VERSIONS;
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kelos::GROUP, version, kind), plural)
}

impl Caches {
    /// Empty caches.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            policies: PolicyStore::new(),
            namespaces: KindStore::new("namespaces"),
            spawners: KindStore::new("taskspawners"),
            workspaces: KindStore::new("workspaces"),
            work_items: KindStore::new("workitems"),
        })
    }

    /// Follows the API server until `shutdown`: one watch per kind, each a task of the returned set.
    ///
    /// RBAC: `list` and `watch` on all six kinds, cluster-wide.
    pub(crate) fn follow(self: &Arc<Self>, client: &Client, shutdown: &CancellationToken) -> JoinSet<()> {
        let dynamic = |resource: &ApiResource| Api::<DynamicObject>::all_with(client.clone(), resource);
        let mut tasks = JoinSet::new();
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = dynamic(&ApiResource::erase::<TaskPolicy>(&()));
        tasks.spawn(async move {
            let policies = &caches.policies;
            let compile = |object| Some(policies.compile_namespaced(object));
            follow(api, &policies.namespaced, compile, || policies.rebuild(), end).await;
        });
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = dynamic(&ApiResource::erase::<ClusterTaskPolicy>(&()));
        tasks.spawn(async move {
            let policies = &caches.policies;
            let compile = |object| Some(policies.compile_cluster(object));
            follow(api, &policies.cluster, compile, || policies.rebuild(), end).await;
        });
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = dynamic(&ApiResource::erase::<WorkItem>(&()));
        tasks.spawn(async move { follow(api, &caches.work_items, trim::work_item, || false, end).await });
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = dynamic(&kelos_resource("TaskSpawner", "taskspawners"));
        tasks.spawn(async move {
            let trim = |object| Some(Arc::new(spawner_info(object)));
            follow(api, &caches.spawners, trim, || false, end).await;
        });
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = dynamic(&kelos_resource("Workspace", "workspaces"));
        tasks.spawn(async move {
            let trim = |object| Some(Arc::new(workspace_info(object)));
            follow(api, &caches.workspaces, trim, || false, end).await;
        });
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
        tasks.spawn(async move {
            let trim = |object: PartialObjectMeta<Namespace>| Some(Arc::new(labels(object.meta())));
            follow(api, &caches.namespaces, trim, || false, end).await;
        });
        tasks
    }

    /// Whether every cache was filled once, or its kind is not installed.
    pub(crate) fn synced(&self) -> bool {
        self.status().iter().all(|cache| cache.synced)
    }

    /// The state of each kind's cache.
    pub(crate) fn status(&self) -> [CacheStatus; 6] {
        [
            self.policies.namespaced.status(),
            self.policies.cluster.status(),
            self.work_items.status(),
            self.spawners.status(),
            self.workspaces.status(),
            self.namespaces.status(),
        ]
    }

    /// How many stored policies cannot be applied.
    pub(crate) fn rejected_policies(&self) -> usize {
        self.policies.rejected()
    }

    /// The policies that are in force now.
    pub(crate) fn policies(&self) -> Arc<PolicySet> {
        self.policies.known().borrow().set.clone()
    }

    /// The stored policies, for other parts of the process. A receiver is notified when a policy is created, deleted or gets a
    /// new generation, but not when only its status changes.
    pub(crate) fn known_policies(&self) -> Receiver<Arc<KnownPolicies>> {
        self.policies.known()
    }

    pub(crate) fn namespace_labels(&self, namespace: &str) -> Option<Arc<BTreeMap<String, String>>> {
        self.namespaces.get("", namespace)
    }

    pub(crate) fn spawner(&self, namespace: &str, name: &str) -> Option<Arc<SpawnerInfo>> {
        self.spawners.get(namespace, name)
    }

    pub(crate) fn workspace(&self, namespace: &str, name: &str) -> Option<Arc<WorkspaceInfo>> {
        self.workspaces.get(namespace, name)
    }

    /// The status of the `WorkItem` `name`, if it belongs to the item `key`.
    pub(crate) fn work_item_status(&self, namespace: &str, name: &str, key: &str) -> Option<Arc<WorkItemStatus>> {
        let cached = self.work_items.get(namespace, name)?;
        (cached.key == key).then(|| cached.status.clone())
    }
}

/// Collects the state of the caches when metrics are scraped.
#[derive(Debug)]
pub(crate) struct CacheCollector(pub(crate) Arc<Caches>);

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
