//! The cluster cache: what taskgate knows of the cluster, once per process.
//!
//! One watch per kind fills one [`Store`] per kind, with the fields that admission and the controller need, trimmed as the objects
//! arrive (C19). A review rarely asks the API server, and a replica that becomes the leader has what it needs at once.
//!
//! ```text
//! clock       the time of the API server
//! watch       list, watch, and list again after every error
//!  └─ trim, work_item   the fields that are kept      policies   compiled once, for the whole process
//!      └─ store   look-ups by key, state of the watch, subscriptions
//!          └─ item_tasks   the Tasks of each work item      kueue   the stores of Kueue's kinds
//! ```
//!
//! Readers get a value by its key, or follow all changes of a kind ([`Store::subscribe`]). Whether the cache is filled, and since
//! when it is stale, is its own property ([`ClusterCache::is_synced`], [`ClusterCache::status`]). It is always some moments behind:
//! where that matters, read the API server.
//!
//! Imports `taskgate-api` and `taskgate-policy`. Called by `taskgate-webhook`, whose server runs the watches, `taskgate-controller`,
//! and the binary, which hands the cache from one to the other.

mod blocking;
mod clock;
mod discovery;
mod item_tasks;
mod kelos_fields;
mod kueue;
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
use taskgate_api::{
    ClusterTaskPolicy, TaskPolicy, WorkItem, kelos::TASKS, kelos_fields::KelosFields, kueue::ConfigRef,
};
use taskgate_policy::{KnownPolicies, PolicySet, TaskState, WorkspaceInfo};
use tokio::{sync::watch::Receiver, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use blocking::block_in_place;
pub use clock::{Clock, MAX_CLOCK_SKEW};
pub use discovery::{is_unanswered, kelos_resource, served_version};
pub use kelos_fields::KelosSchemas;
pub use kueue::KueueStores;
pub use policies::{SpawnerPolicy, StoredPolicy};
pub use store::{NamespacedName, ObjectChange, Store, Subscription};
pub use trim::{CachedSpawner, labels, only_fields, spawner_info, trim_task, workspace_info};
pub use work_item::CachedWorkItem;

use item_tasks::{ItemTasks, LONGEST_LAG};
use kelos_fields::KelosFieldStores;
use policies::PolicyStore;
use store::Observer;
use watch::{fixed, follow, of_kelos};
use work_item::WatchedWorkItem;

/// The trimmed objects of all kinds that taskgate watches for every feature.
#[derive(Debug)]
pub struct ClusterCache {
    clock: Clock,
    policies: PolicyStore,
    namespaces: Store<BTreeMap<String, String>>,
    workspaces: Store<WorkspaceInfo>,
    work_items: Store<CachedWorkItem>,
    tasks: Store<DynamicObject>,
    item_tasks: Arc<ItemTasks>,
    kelos_fields: Arc<KelosFieldStores>,
    kueue: Option<Arc<KueueStores>>,
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
    /// An empty cache; `kueue` locates the configuration of Kueue, if its kinds are to be followed. `clock` observes the answers of
    /// the API server.
    pub fn new(kueue: Option<ConfigRef>, clock: Clock) -> Arc<Self> {
        let item_tasks = Arc::<ItemTasks>::default();
        let observer: Arc<dyn Observer<DynamicObject>> = Arc::clone(&item_tasks) as _;
        Arc::new(Self {
            clock,
            policies: PolicyStore::new(),
            namespaces: Store::new("namespaces"),
            workspaces: Store::new("workspaces"),
            work_items: Store::new("workitems"),
            tasks: Store::new(TASKS).observed_by(observer),
            item_tasks,
            kelos_fields: Arc::new(KelosFieldStores::new()),
            kueue: kueue.map(|config| Arc::new(KueueStores::new(config))),
        })
    }

    /// Follows the API server until `shutdown`: one watch per kind, each a task of the returned set.
    ///
    /// The setting that extends Kelos' schemas is in `namespace`, taskgate's own.
    ///
    /// RBAC: `list` and `watch` on all seven kinds, cluster-wide, and what Kueue's stores and those of Kelos' schemas need.
    pub fn follow(self: &Arc<Self>, client: &Client, namespace: &str, shutdown: &CancellationToken) -> JoinSet<()> {
        let mut watches = JoinSet::new();
        self.follow_policies(client, shutdown, &mut watches);
        self.kelos_fields.follow(client, namespace, shutdown, &mut watches);
        if let Some(kueue) = &self.kueue {
            kueue.follow(client, shutdown, &mut watches);
        }
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = fixed(Api::<WatchedWorkItem>::all(client.clone()));
        watches.spawn(async move {
            // After the Tasks: see `unsettled_tasks_of_item`.
            let tasks = cache.tasks.wait_until_current();
            if end.run_until_cancelled(tasks).await.is_some() {
                follow(api, &cache.work_items, CachedWorkItem::of, || false, end).await;
            }
        });
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = fixed(Api::<PartialObjectMeta<Namespace>>::all(client.clone()));
        watches.spawn(async move {
            let trim = |object: PartialObjectMeta<Namespace>| Some(labels(object.meta()));
            follow(api, &cache.namespaces, trim, || false, end).await;
        });
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = of_kelos(client.clone(), "TaskSpawner", "taskspawners");
        watches.spawn(async move {
            let policies = &cache.policies;
            let compile = |object| Some(policies.compile_spawner(object, &cache.kelos_fields()));
            let changed = || policies.rebuild_for_spawners(cache.kelos_fields());
            follow(api, &policies.spawners, compile, changed, end).await;
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
            let compile = |object| Some(policies.compile(object));
            follow(api, &policies.namespaced, compile, || policies.rebuild(), end).await;
        });
        let (cache, end) = (Arc::clone(self), shutdown.clone());
        let api = fixed(Api::all_with(
            client.clone(),
            &ApiResource::erase::<ClusterTaskPolicy>(&()),
        ));
        watches.spawn(async move {
            let policies = &cache.policies;
            let compile = |object| Some(policies.compile(object));
            follow(api, &policies.cluster, compile, || policies.rebuild(), end).await;
        });
    }

    /// The time of the API server.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether admission can decide: every store that it reads was filled once, or its kind is not installed.
    pub fn is_synced(&self) -> bool {
        self.known_policies().borrow().complete && self.unsynced().next().is_none()
    }

    /// The kinds that admission still waits for. Of Kueue it waits only for the configuration, if that may be read.
    pub fn unsynced(&self) -> impl Iterator<Item = &'static str> {
        let kinds = self.own_and_kelos().into_iter().filter(|cache| !cache.synced);
        let kueue = self.kueue.iter().filter_map(|kueue| kueue.pending());
        kinds
            .map(|cache| cache.kind)
            .chain(kueue)
            .chain(self.kelos_fields.pending())
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
        self.policies.spawners.wait_until_current().await;
        self.tasks.wait_until_current().await;
    }

    /// The state of each kind's store.
    pub fn status(&self) -> Vec<CacheStatus> {
        let kueue = self.kueue.iter().flat_map(|kueue| kueue.status());
        self.own_and_kelos().into_iter().chain(kueue).collect()
    }

    fn own_and_kelos(&self) -> [CacheStatus; 7] {
        [
            self.policies.namespaced.status(),
            self.policies.cluster.status(),
            self.work_items.status(),
            self.tasks.status(),
            self.policies.spawners.status(),
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

    /// The stored policies of both kinds, and the policy fields of TaskSpawners, as one value. A receiver is notified when a policy is created, deleted or gets a new
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

    /// The `TaskSpawners` of Kelos, with their compiled policy fields.
    pub fn spawners(&self) -> &Store<CachedSpawner> {
        &self.policies.spawners
    }

    /// The `Workspaces` of Kelos.
    pub fn workspaces(&self) -> &Store<WorkspaceInfo> {
        &self.workspaces
    }

    /// The `WorkItems`, without the fields that only people read, and without what a retry restores.
    pub fn work_items(&self) -> &Store<CachedWorkItem> {
        &self.work_items
    }

    /// Takes over a `WorkItem` that this process wrote, in place of the version `before`, until the watch shows it.
    pub fn work_item_written(&self, before: &str, item: &WorkItem) {
        let key = NamespacedName::of(item);
        if let Some(item) = CachedWorkItem::compact(item) {
            self.work_items.written(key, before, item);
        }
    }

    /// Takes over a Task that this process wrote, trimmed by [`trim_task`], in place of the version `before`.
    pub fn task_written(&self, before: &str, task: DynamicObject) {
        self.tasks.written(NamespacedName::of(&task), before, task);
    }

    /// The Tasks of Kelos, trimmed by [`trim_task`].
    pub fn tasks(&self) -> &Store<DynamicObject> {
        &self.tasks
    }

    /// Whether Kelos' schemas are to be extended, and what they have of the fields. A receiver is notified of changes only.
    pub fn kelos_schemas(&self) -> Receiver<Arc<KelosSchemas>> {
        self.kelos_fields.schemas()
    }

    /// The fields of Kelos' kinds that are taskgate's.
    pub fn kelos_fields(&self) -> KelosFields {
        self.kelos_fields.schemas().borrow().ours.clone()
    }

    /// The stores of Kueue's kinds; `None`: they are not followed.
    pub fn kueue(&self) -> Option<&Arc<KueueStores>> {
        self.kueue.as_ref()
    }

    /// The Tasks of a work item, by the label that admission sets.
    ///
    /// The watch shows the Tasks in the order of their creation. If the cache has a Task, these therefore include each Task of its item
    /// that was created before it and still exists.
    pub fn tasks_of_item(&self, namespace: &str, work_item: &str) -> Vec<TaskState> {
        self.item_tasks.of(namespace, work_item, false)
    }

    /// Whether a work item has Tasks.
    pub fn has_tasks_of_item(&self, namespace: &str, work_item: &str) -> bool {
        self.item_tasks.has(namespace, work_item)
    }

    /// The Tasks of a work item, and those that were deleted a moment ago: every Task whose failure the cached `WorkItem` may lack. `None` if the cache
    /// cannot know them.
    ///
    /// The watches of Tasks and `WorkItems` do not wait for each other, so that a Task can be gone from the cache before its failure
    /// is in the cached `WorkItem`. Such a Task is among these. Only one that came and went while Tasks were not followed is not:
    /// its failure is in a list of `WorkItems` that began after the list of Tasks was complete; or a watch shows it, which is at
    /// most six minutes behind.
    pub fn unsettled_tasks_of_item(&self, namespace: &str, work_item: &str) -> Option<Vec<TaskState>> {
        let (tasks, items) = (self.tasks.list_times(), self.work_items.list_times());
        let shows_every_failure = tasks.is_none_or(|tasks| {
            items.is_some_and(|items| items.begun >= tasks.complete) || tasks.complete.elapsed() > LONGEST_LAG
        });
        let current = self.tasks.is_current() && self.work_items.is_current();
        (current && shows_every_failure).then(|| self.item_tasks.of(namespace, work_item, true))
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
        let skew = ConstGauge::new(self.0.clock().skew().as_secs_f64());
        skew.encode(encoder.encode_descriptor(
            "clock_skew_seconds",
            "How far this replica's clock is ahead of the API server's; it is corrected",
            None,
            skew.metric_type(),
        )?)?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use taskgate_api::keys::WORK_ITEM;

    use super::*;

    fn task() -> (NamespacedName, DynamicObject) {
        let object = json!({"metadata": {"name": "a", "namespace": "team", "uid": "u", "labels": {WORK_ITEM: "item"}},
            "status": {"phase": "Failed"}});
        (
            NamespacedName::new("team", "a"),
            serde_json::from_value(object).unwrap(),
        )
    }

    fn unsettled(cache: &ClusterCache) -> Option<usize> {
        cache.unsettled_tasks_of_item("team", "item").map(|tasks| tasks.len())
    }

    #[test]
    fn a_deleted_task_is_unsettled_once_the_work_items_are_newer_than_the_tasks() {
        let cache = ClusterCache::new(None, Clock::default());
        assert_eq!(unsettled(&cache), None, "nothing is listed");
        cache.work_items.begin();
        cache.tasks.begin();
        let (key, object) = task();
        cache.tasks.stage(&key, Some(object));
        cache.tasks.commit();
        cache.work_items.commit();
        let stored = || cache.tasks_of_item("team", "item").len();
        assert_eq!(
            (stored(), unsettled(&cache)),
            (1, None),
            "a Task may have come and gone"
        );
        cache.work_items.begin();
        cache.work_items.commit();
        assert_eq!((stored(), unsettled(&cache)), (1, Some(1)));
        cache.tasks.remove(key);
        assert_eq!((stored(), unsettled(&cache)), (0, Some(1)));
        cache.tasks.fail(&std::fmt::Error);
        assert_eq!(unsettled(&cache), None, "its watch does not work");
        cache.tasks.uninstalled();
        assert_eq!(unsettled(&cache), Some(1), "there are no further Tasks");
        cache.work_items.fail(&std::fmt::Error);
        assert_eq!(unsettled(&cache), None);
    }
}
