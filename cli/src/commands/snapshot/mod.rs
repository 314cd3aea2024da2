//! What commands read of a cluster, or of files: one [`Snapshot`] for doctor, explain and status, with its policies compiled
//! and the state of its Tasks.

mod policies;
mod reader;
mod task_summary;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Result, bail};
use kube::api::DynamicObject;
use serde_json::Value;
use taskgate_api::{GROUP, VERSION, WorkItem, foreman, kelos, kueue, metadata::Metadata};

pub(super) use self::{
    policies::{CompiledPolicies, CompiledPolicy, labels, matches, sample_task},
    reader::{CollectionQuery, SnapshotReader},
    task_summary::{DisplayState, TaskSummary},
};
use crate::cluster::{self, ResourceType};

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

    /// The collection of `object`, in any version of its API, among those that explain reads.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let version = object.get("apiVersion")?.as_str()?;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let kind = object.get("kind")?.as_str()?;
        Self::EXPLAIN.into_iter().find(|collection| {
            let (known_group, _, known_kind, _) = collection.resource(&ApiGroups::new());
            known_group == group && known_kind == kind
        })
    }

    /// The resource type, in the newest version that taskgate knows and the API server serves.
    fn resource(self, groups: &ApiGroups) -> ResourceType {
        let kelos = || served_version(groups, kelos::GROUP, &kelos::TASK_VERSIONS);
        let kueue = || served_version(groups, kueue::GROUP, &kueue::VERSIONS);
        match self {
            Self::Tasks => (kelos::GROUP, kelos(), "Task", kelos::TASKS),
            Self::Spawners => (kelos::GROUP, kelos(), "TaskSpawner", "taskspawners"),
            Self::WorkItems => (GROUP, VERSION, "WorkItem", "workitems"),
            Self::Policies => (GROUP, VERSION, "TaskPolicy", "taskpolicies"),
            Self::ClusterPolicies => (GROUP, VERSION, "ClusterTaskPolicy", "clustertaskpolicies"),
            Self::Namespaces => cluster::NAMESPACE,
            Self::Jobs => cluster::JOB,
            Self::KueueWorkloads => (kueue::GROUP, kueue(), "Workload", kueue::WORKLOADS),
            Self::Workloads => {
                let version = served_version(groups, foreman::GROUP, &foreman::VERSIONS);
                (foreman::GROUP, version, "Workload", foreman::WORKLOADS)
            }
            Self::LocalQueues => (kueue::GROUP, kueue(), "LocalQueue", kueue::LOCAL_QUEUES),
            Self::PriorityClasses => (kueue::GROUP, kueue(), "WorkloadPriorityClass", kueue::PRIORITY_CLASSES),
            Self::KueueConfig | Self::DisableSwitch => cluster::CONFIG_MAP,
            Self::MutatingConfigurations => cluster::MUTATING_CONFIGURATION,
            Self::ValidatingConfigurations => cluster::VALIDATING_CONFIGURATION,
            Self::Crd(_) => cluster::CRD,
            Self::Deployments(_) | Self::Deployment => cluster::DEPLOYMENT,
            Self::Pods => ("", "v1", "Pod", "pods"),
            Self::Service => cluster::SERVICE,
            Self::Lease => cluster::LEASE,
        }
    }

    /// Whether its objects have a namespace.
    pub(super) fn is_namespaced(self) -> bool {
        !matches!(self, Self::ClusterPolicies | Self::Namespaces | Self::PriorityClasses)
    }
}

/// The newest of the `known` versions that is served; where none is, the newest.
fn served_version(groups: &ApiGroups, group: &str, known: &[&'static str]) -> &'static str {
    let served = groups.get(group).map(Vec::as_slice).unwrap_or_default();
    let is_served = |version: &&&str| served.iter().any(|served| served == **version);
    known
        .iter()
        .find(is_served)
        .or(known.first())
        .copied()
        .unwrap_or_default()
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

    /// The objects of `collection` with their namespaces and names.
    fn named(&self, collection: Collection) -> impl Iterator<Item = (String, String, &Arc<Value>)> {
        self.objects(collection).iter().filter_map(|object| {
            let metadata = Metadata::of(object);
            let namespace = metadata.namespace().unwrap_or_default().to_owned();
            Some((namespace, metadata.name()?.to_owned(), object))
        })
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
