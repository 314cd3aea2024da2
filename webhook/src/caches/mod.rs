//! What taskgate keeps of the cluster, so that a review asks the API server as little as possible: only the kinds and
//! only the fields that decisions need (C19).

mod follow;
mod policies;
mod table;
mod trim;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta},
};
use taskgate_api::{ClusterTaskPolicy, TaskPolicy, WorkItem, WorkItemStatus, kelos};
use taskgate_policy::{KnownPolicies, PolicySet, SpawnerInfo, WorkspaceInfo};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use follow::follow;
use policies::Policies;
use table::Table;
use trim::Remembered;
pub(crate) use trim::{labels, spawner_facts, workspace_facts};

/// Every cache of the process.
#[derive(Debug)]
pub struct Caches {
    policies: Policies,
    namespaces: Table<Arc<BTreeMap<String, String>>>,
    spawners: Table<Arc<SpawnerInfo>>,
    workspaces: Table<Arc<WorkspaceInfo>>,
    work_items: Table<Arc<Remembered>>,
}

/// The state of one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheReport {
    /// The kind that is kept, in the plural that the API uses.
    pub kind: &'static str,
    /// How many objects there are.
    pub objects: usize,
    /// Whether it was filled once, or the kind is not installed.
    pub synced: bool,
    /// How long it has been without a working watch.
    pub age: Duration,
}

/// The API resource of Kelos' kinds, which are no types here.
pub(crate) fn kelos_resource(kind: &str, plural: &str) -> ApiResource {
    let [version, ..] = kelos::TASK_VERSIONS;
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kelos::GROUP, version, kind), plural)
}

impl Caches {
    /// Empty caches.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            policies: Policies::new(),
            namespaces: Table::new("namespaces"),
            spawners: Table::new("taskspawners"),
            workspaces: Table::new("workspaces"),
            work_items: Table::new("workitems"),
        })
    }

    /// Follows the API server until `shutdown`: one watch per kind, each a task of the set that is returned.
    ///
    /// RBAC: `list` and `watch` on all six kinds, cluster-wide.
    pub fn follow(self: &Arc<Self>, client: &Client, shutdown: &CancellationToken) -> JoinSet<()> {
        let typed = |resource: &ApiResource| Api::<DynamicObject>::all_with(client.clone(), resource);
        let mut tasks = JoinSet::new();
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = typed(&ApiResource::erase::<TaskPolicy>(&()));
        tasks.spawn(async move {
            let policies = &caches.policies;
            let compile = |object| Some(policies.compile_namespaced(object));
            follow(api, &policies.namespaced, compile, || policies.rebuild(), end).await;
        });
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = typed(&ApiResource::erase::<ClusterTaskPolicy>(&()));
        tasks.spawn(async move {
            let policies = &caches.policies;
            let compile = |object| Some(policies.compile_cluster(object));
            follow(api, &policies.cluster, compile, || policies.rebuild(), end).await;
        });
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = typed(&ApiResource::erase::<WorkItem>(&()));
        tasks.spawn(async move { follow(api, &caches.work_items, trim::work_item, || false, end).await });
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = typed(&kelos_resource("TaskSpawner", "taskspawners"));
        tasks.spawn(async move {
            let trim = |object| Some(Arc::new(spawner_facts(object)));
            follow(api, &caches.spawners, trim, || false, end).await;
        });
        let (caches, end) = (self.clone(), shutdown.clone());
        let api = typed(&kelos_resource("Workspace", "workspaces"));
        tasks.spawn(async move {
            let trim = |object| Some(Arc::new(workspace_facts(object)));
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
    pub fn synced(&self) -> bool {
        self.report().iter().all(|cache| cache.synced)
    }

    /// The state of each cache.
    pub fn report(&self) -> [CacheReport; 6] {
        [
            self.policies.namespaced.report(),
            self.policies.cluster.report(),
            self.work_items.report(),
            self.spawners.report(),
            self.workspaces.report(),
            self.namespaces.report(),
        ]
    }

    /// How many stored policies cannot be applied.
    pub fn rejected_policies(&self) -> usize {
        self.policies.rejected()
    }

    /// The policies in force at the moment.
    pub fn policies(&self) -> Arc<PolicySet> {
        self.policies.known().borrow().set.clone()
    }

    /// The stored policies, for other parts of the process: a receiver wakes when one is created, deleted,
    /// or gets a new generation, and not when only its status changes.
    pub fn known_policies(&self) -> watch::Receiver<Arc<KnownPolicies>> {
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

    /// The memory of the item `key`, if the `WorkItem` of that name is about that item.
    pub(crate) fn memory(&self, namespace: &str, name: &str, key: &str) -> Option<Arc<WorkItemStatus>> {
        let remembered = self.work_items.get(namespace, name)?;
        (remembered.key == key).then(|| remembered.status.clone())
    }
}
