//! What a decision is made from.

use std::collections::BTreeMap;

use serde_json::Value;
use taskgate_api::{job::Job, kelos::Task};

use crate::{PolicySet, SpawnerFacts, Workspace};

/// Which of the API server's two admission phases asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The object may still be patched; other webhooks may run before and after.
    Mutating,
    /// The object is final.
    Validating,
}

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// It is new.
    Create,
    /// It is changed.
    Update,
    /// It is deleted; there is no new object.
    Delete,
    /// A subresource such as `exec` is opened.
    Connect,
}

/// The kinds that taskgate has something to say about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A Kelos Task.
    Task,
    /// A `batch/v1` Job.
    Job,
    /// A `TaskPolicy`.
    TaskPolicy,
    /// A `ClusterTaskPolicy`.
    ClusterTaskPolicy,
    /// A `WorkItem`.
    WorkItem,
    /// The status of a `WorkItem`.
    WorkItemStatus,
}

/// One admission request, borrowed from the review that carried it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Which phase asks.
    pub phase: Phase,
    /// What kind of object it is about.
    pub kind: Kind,
    /// What is done to it.
    pub operation: Operation,
    /// The namespace; empty for a cluster-scoped object.
    pub namespace: &'a str,
    /// The object that is decided about; null on DELETE. Of a new Task or Job what its creator may state
    /// ([`stated`](crate::stated)).
    pub object: &'a Value,
    /// The object as it was sent, which the patch is for.
    pub sent: &'a Value,
    /// The object as it is stored; null on CREATE.
    pub old: &'a Value,
    /// Who asks.
    pub user: &'a str,
    /// Whether that is taskgate itself.
    pub own: bool,
    /// Whether nothing will be stored.
    pub dry_run: bool,
}

/// What is known of the request's surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Every policy in the cluster.
    pub policies: &'a PolicySet,
    /// The labels of the request's namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// For a Job: the Task that owns it, whole.
    pub owner_task: Option<&'a Value>,
    /// The `TaskSpawner` that the Task names, when it exists.
    pub spawner: Option<&'a SpawnerFacts>,
    /// The Workspace that the Task names.
    pub workspace: &'a Workspace,
    /// For a Job: what is known of Kueue.
    pub kueue: KueueFacts,
}

/// What is known of Kueue where a Job is made; each is `None` when nobody looked, or nobody could tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KueueFacts {
    /// Whether Kueue looks after Jobs of the namespace.
    pub manages_namespace: Option<bool>,
    /// Whether there is a Kueue.
    pub installed: Option<bool>,
    /// Whether there is the `LocalQueue` that the Job names.
    pub local_queue: Option<bool>,
    /// Whether there is the `WorkloadPriorityClass` that the Job names.
    pub priority_class: Option<bool>,
}

impl<'a> Request<'a> {
    /// The Task that the request is about: the object itself, or the owner of the Job.
    pub(crate) fn task(&self, facts: &Facts<'a>) -> Option<Task<'a>> {
        match self.kind {
            Kind::Task => Some(Task::of(self.object)),
            Kind::Job => facts.owner_task.map(Task::of),
            Kind::TaskPolicy | Kind::ClusterTaskPolicy | Kind::WorkItem | Kind::WorkItemStatus => None,
        }
    }

    /// The object of that Task.
    pub(crate) fn task_object(&self, facts: &Facts<'a>) -> &'a Value {
        match self.kind {
            Kind::Job => facts.owner_task.unwrap_or(&Value::Null),
            _ => self.object,
        }
    }

    /// The object as a Job.
    pub(crate) fn job(&self) -> Job<'a> {
        Job::of(self.object)
    }
}
