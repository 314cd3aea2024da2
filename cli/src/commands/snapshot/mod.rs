//! What commands read of a cluster, or of files: one [`Snapshot`] for doctor, explain and status, with its policies compiled
//! and the state of its Tasks.

mod policies;
mod task_summary;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Result, bail};
use futures::future::join_all;
use k8s_openapi::{
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        apps::v1::Deployment,
        batch::v1::Job,
        coordination::v1::Lease,
        core::v1::{ConfigMap, Namespace, Pod, Service},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::Value;
use taskgate_api::{ClusterTaskPolicy, TaskPolicy, WorkItem, foreman, kelos, kueue};

pub(super) use self::{
    policies::{CompiledPolicies, CompiledPolicy, labels, matches, sample_task},
    task_summary::{DisplayState, TaskSummary},
};
use crate::{
    cluster::{self, Connection, resource, resource_of},
    output::ProgressLine,
};

/// Kueue's Deployment, in its own manifests and its chart.
pub(super) const KUEUE_DEPLOYMENT: &str = "kueue-controller-manager";

/// The versions of each API group that the API server serves.
pub(super) type ApiGroups = BTreeMap<String, Vec<String>>;

/// A collection of objects that a snapshot can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Collection {
    Tasks,
    Spawners,
    WorkItems,
    Policies,
    ClusterPolicies,
    Namespaces,
    Jobs,
    /// Kueue's Workloads.
    KueueWorkloads,
    /// Foreman's Workloads.
    Workloads,
    LocalQueues,
    PriorityClasses,
    /// The ConfigMap with Kueue's configuration.
    KueueConfig,
    MutatingConfigurations,
    ValidatingConfigurations,
    /// A CustomResourceDefinition, by name.
    Crd(&'static str),
    /// The Deployments of another system, by name, in any namespace.
    Deployments(&'static str),
    /// taskgate's Deployment.
    Deployment,
    /// taskgate's pods.
    Pods,
    /// taskgate's Service.
    Service,
    /// The Lease of taskgate's replicas.
    Lease,
    /// The ConfigMap that disables taskgate.
    DisableSwitch,
    /// The ConfigMap that extends Kelos' schemas.
    KelosFields,
}

impl Collection {
    /// What `taskgate status` reads.
    pub(super) const STATUS: [Self; 6] = [
        Self::Tasks,
        Self::Spawners,
        Self::WorkItems,
        Self::Policies,
        Self::ClusterPolicies,
        Self::Namespaces,
    ];

    /// What `taskgate explain` reads, from a cluster or from files.
    pub(super) const EXPLAIN: [Self; 9] = [
        Self::Tasks,
        Self::Spawners,
        Self::WorkItems,
        Self::Policies,
        Self::ClusterPolicies,
        Self::Namespaces,
        Self::Jobs,
        Self::KueueWorkloads,
        Self::Workloads,
    ];

    /// The webhook configurations and their kinds, the mutating ones first.
    pub(super) const CONFIGURATIONS: [(Self, &'static str); 2] = [
        (Self::MutatingConfigurations, "MutatingWebhookConfiguration"),
        (Self::ValidatingConfigurations, "ValidatingWebhookConfiguration"),
    ];

    /// The collection of `object`, in any version of its API, among those that explain reads.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let version = object.get("apiVersion")?.as_str()?;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let kind = object.get("kind")?.as_str()?;
        Self::EXPLAIN.into_iter().find(|collection| {
            let known = collection.resource(&ApiGroups::new());
            known.group == group && known.kind == kind
        })
    }

    /// Its resource, in the newest version that taskgate knows and the API server serves.
    fn resource(self, groups: &ApiGroups) -> ApiResource {
        let kelos = |kind, plural| served(groups, kelos::GROUP, &kelos::TASK_VERSIONS, kind, plural);
        let kueue = |kind, plural| served(groups, kueue::GROUP, &kueue::VERSIONS, kind, plural);
        match self {
            Self::Tasks => kelos("Task", kelos::TASKS),
            Self::Spawners => kelos("TaskSpawner", "taskspawners"),
            Self::WorkItems => resource_of::<WorkItem>(),
            Self::Policies => resource_of::<TaskPolicy>(),
            Self::ClusterPolicies => resource_of::<ClusterTaskPolicy>(),
            Self::Namespaces => resource_of::<Namespace>(),
            Self::Jobs => resource_of::<Job>(),
            Self::KueueWorkloads => kueue("Workload", kueue::WORKLOADS),
            Self::Workloads => served(
                groups,
                foreman::GROUP,
                &foreman::VERSIONS,
                "Workload",
                foreman::WORKLOADS,
            ),
            Self::LocalQueues => kueue("LocalQueue", kueue::LOCAL_QUEUES),
            Self::PriorityClasses => kueue("WorkloadPriorityClass", kueue::PRIORITY_CLASSES),
            Self::KueueConfig | Self::DisableSwitch | Self::KelosFields => resource_of::<ConfigMap>(),
            Self::MutatingConfigurations => resource_of::<MutatingWebhookConfiguration>(),
            Self::ValidatingConfigurations => resource_of::<ValidatingWebhookConfiguration>(),
            Self::Crd(_) => resource_of::<CustomResourceDefinition>(),
            Self::Deployments(_) | Self::Deployment => resource_of::<Deployment>(),
            Self::Pods => resource_of::<Pod>(),
            Self::Service => resource_of::<Service>(),
            Self::Lease => resource_of::<Lease>(),
        }
    }

    /// Whether its objects have a namespace.
    pub(super) fn is_namespaced(self) -> bool {
        !matches!(self, Self::ClusterPolicies | Self::Namespaces | Self::PriorityClasses)
    }
}

/// The resource in the newest of the `known` versions that is served; where none is, in the newest.
fn served(groups: &ApiGroups, group: &str, known: &[&str], kind: &str, plural: &str) -> ApiResource {
    let served = groups.get(group).map(Vec::as_slice).unwrap_or_default();
    let is_served = |version: &&&str| served.iter().any(|served| served == **version);
    let version = known.iter().find(is_served).or(known.first());
    resource(group, version.copied().unwrap_or_default(), kind, plural)
}

/// Why objects are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// There is no such object, or the API server does not know the kind.
    Absent,
    /// The API server refused the request, with this message.
    Refused(String),
    /// The API server did not answer.
    Unreachable(String),
}

impl From<kube::Error> for ReadError {
    fn from(error: kube::Error) -> Self {
        match &error {
            error if cluster::is_not_found(error) => Self::Absent,
            kube::Error::Api(_) => Self::Refused(format!("{:#}", cluster::api_error(error))),
            _ => Self::Unreachable(format!("{:#}", anyhow::Error::from(error))),
        }
    }
}

impl ReadError {
    /// The message; `None` where there are no such objects.
    pub(super) fn message(&self) -> Option<&str> {
        match self {
            Self::Absent => None,
            Self::Refused(message) | Self::Unreachable(message) => Some(message),
        }
    }
}

/// The objects of a collection, or why they are not known.
pub(super) type ReadResult = Result<Vec<Arc<Value>>, ReadError>;

/// Everything that was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    collections: BTreeMap<Collection, ReadResult>,
    /// The collections that have more objects than were read.
    partial: BTreeSet<Collection>,
}

impl Snapshot {
    pub(super) fn put(&mut self, collection: Collection, objects: ReadResult) {
        self.collections.insert(collection, objects);
    }

    /// Adds the collections of `other`.
    pub(super) fn extend(&mut self, other: Self) {
        self.collections.extend(other.collections);
        self.partial.extend(other.partial);
    }

    /// How many collections there are.
    pub(super) fn len(&self) -> usize {
        self.collections.len()
    }

    /// How many collections could not be read. One of a kind that does not exist is empty.
    pub(super) fn errors(&self) -> usize {
        let errors = self.collections.values().filter_map(|objects| objects.as_ref().err());
        errors.filter(|error| **error != ReadError::Absent).count()
    }

    /// The snapshot, or an error when the API server did not answer.
    pub(super) fn if_reachable(self) -> Result<Self> {
        for objects in self.collections.values() {
            if let Err(ReadError::Unreachable(message)) = objects {
                bail!("{message}");
            }
        }
        Ok(self)
    }

    /// The objects of `collection`; none where they are not known.
    pub(super) fn objects(&self, collection: Collection) -> &[Arc<Value>] {
        self.read(collection).unwrap_or_default()
    }

    /// The objects of `collection`, or why they are not known.
    pub(super) fn read(&self, collection: Collection) -> Result<&[Arc<Value>], &ReadError> {
        match self.collections.get(&collection) {
            Some(objects) => objects.as_ref().map(Vec::as_slice),
            None => Err(&ReadError::Absent),
        }
    }

    /// The object of a collection that has at most one.
    pub(super) fn one(&self, collection: Collection) -> Result<&Value, &ReadError> {
        self.read(collection)?
            .first()
            .map(|object| &**object)
            .ok_or(&ReadError::Absent)
    }

    /// An object to change.
    #[cfg(test)]
    pub(super) fn object_mut(&mut self, collection: Collection, index: usize) -> &mut Value {
        let objects = self
            .collections
            .get_mut(&collection)
            .and_then(|objects| objects.as_mut().ok());
        Arc::make_mut(&mut objects.expect("it is known")[index])
    }

    #[cfg(test)]
    pub(super) fn collections(&self) -> impl Iterator<Item = Collection> {
        self.collections.keys().copied()
    }

    /// Leaves more objects of `collection` unread.
    #[cfg(test)]
    pub(super) fn set_partial(&mut self, collection: Collection) {
        self.partial.insert(collection);
    }

    /// Why the objects of `collection` are not known.
    pub(super) fn error(&self, collection: Collection) -> Option<&ReadError> {
        self.collections.get(&collection)?.as_ref().err()
    }

    /// Whether `collection` has more objects than were read.
    pub(super) fn is_partial(&self, collection: Collection) -> bool {
        self.partial.contains(&collection)
    }

    /// The WorkItems, and the problem of those that cannot be parsed.
    pub(super) fn work_items(&self) -> (Vec<WorkItem>, Option<String>) {
        let objects = self.objects(Collection::WorkItems);
        let parse = |object: &Arc<Value>| serde_json::from_value::<WorkItem>((**object).clone()).ok();
        let items: Vec<_> = objects.iter().filter_map(parse).collect();
        let count = objects.len() - items.len();
        let problem = (count > 0).then(|| format!("{count} WorkItems do not have the schema that this taskgate knows"));
        (items, problem)
    }
}

/// An object as JSON.
pub(super) fn json(object: &DynamicObject) -> Arc<Value> {
    // An object that was parsed from JSON can be written as JSON.
    Arc::new(serde_json::to_value(object).unwrap_or_default())
}

/// Reads collections of one namespace, or of all.
pub(super) struct SnapshotReader {
    connection: Connection,
    all_namespaces: bool,
    pub(super) groups: Result<ApiGroups, ReadError>,
}

/// A collection and the request that reads it.
pub(super) struct CollectionQuery {
    collection: Collection,
    namespace: Option<String>,
    request: QueryRequest,
}

enum QueryRequest {
    Get(String),
    List(ListParams),
}

impl CollectionQuery {
    /// One object.
    pub(super) fn get(collection: Collection, namespace: Option<&str>, name: &str) -> Self {
        Self {
            collection,
            namespace: namespace.map(ToOwned::to_owned),
            request: QueryRequest::Get(name.to_owned()),
        }
    }

    /// The objects in `namespace`, or everywhere.
    pub(super) fn list(collection: Collection, namespace: Option<&str>, params: ListParams) -> Self {
        Self {
            collection,
            namespace: namespace.map(ToOwned::to_owned),
            request: QueryRequest::List(params),
        }
    }
}

impl SnapshotReader {
    /// Reads the API groups. Errors when the API server does not answer.
    pub(super) async fn discover(connection: Connection, all_namespaces: bool) -> Result<Self> {
        let progress = ProgressLine::new("asking the API server");
        let found = progress.during(connection.client.list_api_groups(), || (0, 1)).await;
        let groups = match found.map_err(ReadError::from) {
            Ok(found) => Ok(found.groups.into_iter().map(|group| {
                let versions = group.versions.into_iter().map(|version| version.version);
                (group.name, versions.collect())
            })),
            Err(ReadError::Unreachable(message)) => anyhow::bail!("{message}"),
            // A user without that right may still read objects.
            Err(error) => Err(error),
        };
        Ok(Self {
            connection,
            all_namespaces,
            groups: groups.map(Iterator::collect),
        })
    }

    /// The namespace; `None` for all.
    pub(super) fn namespace(&self) -> Option<&str> {
        (!self.all_namespaces).then_some(self.connection.namespace.as_str())
    }

    /// The objects of `collection` in the reader's namespace.
    pub(super) fn api(&self, collection: Collection) -> Api<DynamicObject> {
        self.api_in(collection, self.namespace().filter(|_| collection.is_namespaced()))
    }

    /// The objects of `collection` in `namespace`, or everywhere.
    pub(super) fn api_in(&self, collection: Collection, namespace: Option<&str>) -> Api<DynamicObject> {
        self.connection.api(&self.resource(collection), namespace)
    }

    /// The resource type of `collection`, in the version that the API server serves.
    pub(super) fn resource(&self, collection: Collection) -> ApiResource {
        let groups = self.groups.as_ref().ok();
        collection.resource(groups.unwrap_or(&ApiGroups::new()))
    }

    /// The query for all of `collection` in the reader's namespace.
    pub(super) fn query(&self, collection: Collection) -> CollectionQuery {
        match self.namespace() {
            // A user of one namespace may usually get it, but not list all.
            Some(namespace) if collection == Collection::Namespaces => {
                CollectionQuery::get(collection, None, namespace)
            }
            namespace => {
                let namespace = namespace.filter(|_| collection.is_namespaced());
                CollectionQuery::list(collection, namespace, ListParams::default())
            }
        }
    }

    /// Sends all queries concurrently. Errors are in the snapshot.
    pub(super) async fn read(&self, queries: impl IntoIterator<Item = CollectionQuery>) -> Snapshot {
        let done = Cell::new(0);
        let reads: Vec<_> = queries
            .into_iter()
            .map(async |query| {
                let result = self.send(&query).await;
                done.set(done.get() + 1);
                (query.collection, result)
            })
            .collect();
        let total = reads.len();
        let progress = ProgressLine::new("reading the cluster");
        let mut snapshot = Snapshot::default();
        for (collection, result) in progress.during(join_all(reads), || (done.get(), total)).await {
            let objects: ReadResult = result.map(|(objects, is_partial)| {
                if is_partial {
                    snapshot.partial.insert(collection);
                }
                objects.iter().map(json).collect()
            });
            snapshot.put(collection, objects);
        }
        snapshot
    }

    /// The objects, and whether there are more.
    async fn send(&self, query: &CollectionQuery) -> Result<(Vec<DynamicObject>, bool), ReadError> {
        let api = self.api_in(query.collection, query.namespace.as_deref());
        match &query.request {
            QueryRequest::Get(name) => Ok((vec![api.get(name).await?], false)),
            QueryRequest::List(params) => {
                let list = api.list(params).await?;
                let more = list.metadata.continue_.is_some_and(|token| !token.is_empty());
                Ok((list.items, more))
            }
        }
    }
}
