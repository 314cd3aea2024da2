//! What is read, and what came of reading it.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
};
use serde_json::Value;
use taskgate_api::{GROUP, VERSION, foreman, kelos, kueue};

use crate::{
    commands::{Connection, kind::resource, said},
    output::Progress,
};

/// A kind of object that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::commands) enum Kind {
    Tasks,
    Spawners,
    WorkItems,
    Policies,
    ClusterPolicies,
    Namespaces,
    Jobs,
    /// Kueue's.
    QueuedWorkloads,
    /// Foreman's.
    Workloads,
}

/// What `taskgate status` reads.
pub(in crate::commands) const STATUS: [Kind; 6] = [
    Kind::Tasks,
    Kind::Spawners,
    Kind::WorkItems,
    Kind::Policies,
    Kind::ClusterPolicies,
    Kind::Namespaces,
];

impl Kind {
    /// All of them.
    pub(in crate::commands) const ALL: [Self; 9] = [
        Self::Tasks,
        Self::Spawners,
        Self::WorkItems,
        Self::Policies,
        Self::ClusterPolicies,
        Self::Namespaces,
        Self::Jobs,
        Self::QueuedWorkloads,
        Self::Workloads,
    ];

    /// The kind of `object`, in any version of its API.
    pub(in crate::commands) fn of(object: &Value) -> Option<Self> {
        let version = object.get("apiVersion")?.as_str()?;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let kind = object.get("kind")?.as_str()?;
        let [newest, ..] = kelos::TASK_VERSIONS;
        Self::ALL.into_iter().find(|known| {
            let resource = known.resource(newest);
            resource.group == group && resource.kind == kind
        })
    }

    fn resource(self, kelos_version: &'static str) -> ApiResource {
        resource(match self {
            Self::Tasks => (kelos::GROUP, kelos_version, "Task", kelos::TASKS),
            Self::Spawners => (kelos::GROUP, kelos_version, "TaskSpawner", "taskspawners"),
            Self::WorkItems => (GROUP, VERSION, "WorkItem", "workitems"),
            Self::Policies => (GROUP, VERSION, "TaskPolicy", "taskpolicies"),
            Self::ClusterPolicies => (GROUP, VERSION, "ClusterTaskPolicy", "clustertaskpolicies"),
            Self::Namespaces => ("", "v1", "Namespace", "namespaces"),
            Self::Jobs => ("batch", "v1", "Job", "jobs"),
            Self::QueuedWorkloads => (kueue::GROUP, kueue::VERSIONS[0], "Workload", kueue::WORKLOADS),
            Self::Workloads => (foreman::GROUP, foreman::VERSIONS[0], "Workload", foreman::WORKLOADS),
        })
    }

    /// Whether its objects live in namespaces.
    pub(in crate::commands) fn is_namespaced(self) -> bool {
        !matches!(self, Self::ClusterPolicies | Self::Namespaces)
    }
}

/// Where is read.
pub(in crate::commands) struct Reach {
    connection: Connection,
    all_namespaces: bool,
    kelos_version: &'static str,
}

impl Reach {
    /// Asks the API server which version of Kelos' kinds it serves. Errors when it does not answer.
    pub(in crate::commands) async fn of(connection: Connection, all_namespaces: bool) -> Result<Self> {
        let [newest, ..] = kelos::TASK_VERSIONS;
        let asking = Progress::new("asking the API server");
        let groups = asking.during(connection.client.list_api_groups(), || (0, 1));
        let groups = match groups.await {
            Ok(groups) => groups.groups,
            // Whoever may not ask may still be allowed to read.
            Err(kube::Error::Api(_)) => Vec::new(),
            Err(error) => return Err(said(error)),
        };
        let served = groups.into_iter().find(|group| group.name == kelos::GROUP);
        let served = served.map(|group| group.versions).unwrap_or_default();
        let known = kelos::TASK_VERSIONS
            .into_iter()
            .find(|known| served.iter().any(|version| version.version == *known));
        Ok(Self {
            connection,
            all_namespaces,
            kelos_version: known.unwrap_or(newest),
        })
    }

    /// The one namespace; `None` for all.
    pub(in crate::commands) fn namespace(&self) -> Option<&str> {
        (!self.all_namespaces).then_some(self.connection.namespace.as_str())
    }

    /// The objects of `kind`, as far as they are read.
    pub(in crate::commands) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        let resource = kind.resource(self.kelos_version);
        let client = self.connection.client.clone();
        match self.namespace().filter(|_| kind.is_namespaced()) {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }
}

/// Why objects of a kind are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Trouble {
    /// The API server does not know the kind.
    Absent,
    /// Something else, in its own words.
    Said(String),
}

impl Trouble {
    /// What an answer of the API server means. Errors when it did not answer.
    pub(in crate::commands) fn of(error: kube::Error) -> Result<Self> {
        match error {
            kube::Error::Api(status) if status.code == 404 => Ok(Self::Absent),
            kube::Error::Api(status) if !status.message.is_empty() => Ok(Self::Said(status.message.clone())),
            error @ kube::Error::Api(_) => Ok(Self::Said(error.to_string())),
            error => Err(said(error)),
        }
    }
}

/// The objects of a kind, or why they are not known.
pub(in crate::commands) type Read = Result<Vec<Arc<Value>>, Trouble>;

/// Everything that was read.
#[derive(Clone, Debug, Default)]
pub(in crate::commands) struct Snapshot(BTreeMap<Kind, Read>);

impl Snapshot {
    /// Notes what came of reading `kind`.
    pub(in crate::commands) fn put(&mut self, kind: Kind, read: Read) {
        self.0.insert(kind, read);
    }

    /// How many kinds there are.
    pub(in crate::commands) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many kinds could not be read. One that does not exist is no trouble: there are no such objects.
    pub(in crate::commands) fn troubles(&self) -> usize {
        let in_trouble = |read: &&Read| matches!(read, Err(Trouble::Said(_)));
        self.0.values().filter(in_trouble).count()
    }

    /// The objects of `kind`; none where they are not known.
    pub(in crate::commands) fn objects(&self, kind: Kind) -> &[Arc<Value>] {
        match self.0.get(&kind) {
            Some(Ok(objects)) => objects,
            _ => &[],
        }
    }

    /// Why the objects of `kind` are not known.
    pub(in crate::commands) fn trouble(&self, kind: Kind) -> Option<&Trouble> {
        self.0.get(&kind)?.as_ref().err()
    }
}

/// An object as JSON.
pub(in crate::commands) fn json(object: &DynamicObject) -> Arc<Value> {
    // What came as JSON can be written as JSON; what cannot reads as an object without anything.
    Arc::new(serde_json::to_value(object).unwrap_or_default())
}
