//! The inputs of a decision: an admission request, and the cluster state around it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use taskgate_api::{Mode, job::Job, kelos::Task, kelos_fields::KelosFields};

use super::Finding;
use crate::{
    issue_source::{SpawnerInfo, Workspace},
    matching::{ItemIdentity, PolicyScope, PolicySet, Sections},
    template::{Budget, TemplateInput},
};

/// One of the API server's two admission phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The object may still be patched; other webhooks may run before and after.
    Mutating,
    /// The object is final.
    Validating,
}

/// The operation of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
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

impl Operation {
    /// The name in metrics and logs. Requests and the rules of webhooks have it in upper case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Connect => "connect",
        }
    }
}

/// The kinds that taskgate reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A Kelos Task.
    Task,
    /// A `batch/v1` Job.
    Job,
    /// A Kelos TaskSpawner, or its status.
    TaskSpawner,
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
    /// The admission phase.
    pub phase: Phase,
    /// The kind of the object.
    pub kind: Kind,
    /// The operation.
    pub operation: Operation,
    /// The namespace; empty for a cluster-scoped object.
    pub namespace: &'a str,
    /// The object that is decided about; null on DELETE. A new Task or Job is without taskgate's reserved keys
    /// ([`without_reserved_keys`](crate::without_reserved_keys)).
    pub object: &'a Value,
    /// The object as it was sent, which the patch is for.
    pub sent: &'a Value,
    /// The object as it is stored; null on CREATE.
    pub old: &'a Value,
    /// The user.
    pub user: &'a str,
    /// Whether the user is taskgate itself.
    pub own: bool,
    /// Whether the request is a dry run.
    pub dry_run: bool,
}

/// The cluster state that a decision needs.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionContext<'a> {
    /// Every policy in the cluster.
    pub policies: &'a PolicySet,
    /// The labels of the request's namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// For a Job: the Task that owns it, with the metadata, the status and the [`TEMPLATE_FIELDS`](crate::TEMPLATE_FIELDS) at least.
    pub owner_task: Option<&'a Value>,
    /// The `TaskSpawner` that the Task names, when it exists.
    pub spawner: Option<&'a SpawnerInfo>,
    /// The Workspace that the Task names.
    pub workspace: &'a Workspace,
    /// For a Job: the state of Kueue.
    pub kueue: &'a KueueInfo,
    /// The fields of Kelos' kinds that are taskgate's.
    pub kelos_fields: &'a KelosFields,
}

/// The state of Kueue for a new Job; a field is `None` when it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KueueInfo {
    /// Whether Kueue manages Jobs of the namespace.
    pub manages_namespace: Option<bool>,
    /// Whether Kueue's configuration exists and cannot be read: then the namespaces that Kueue manages are
    /// unknown.
    pub config_unreadable: bool,
    /// Whether Kueue is installed.
    pub installed: Option<bool>,
    /// The names of the namespace's `LocalQueues`.
    pub local_queues: Option<BTreeSet<String>>,
    /// The names of the `WorkloadPriorityClasses`.
    pub priority_classes: Option<BTreeSet<String>>,
}

impl<'a> Request<'a> {
    /// The Task that the request is about: the object itself, or the owner of the Job.
    pub(crate) fn task(&self, context: &AdmissionContext<'a>) -> Option<Task<'a>> {
        match self.kind {
            Kind::Task => Some(Task::of(self.object)),
            Kind::Job => context.owner_task.map(Task::of),
            Kind::TaskSpawner | Kind::TaskPolicy | Kind::ClusterTaskPolicy | Kind::WorkItem | Kind::WorkItemStatus => {
                None
            }
        }
    }

    /// The object of that Task.
    pub(crate) fn task_object(&self, context: &AdmissionContext<'a>) -> &'a Value {
        match self.kind {
            Kind::Job => context.owner_task.unwrap_or(&Value::Null),
            _ => self.object,
        }
    }

    /// The object as a Job.
    pub(crate) fn job(&self) -> Job<'a> {
        Job::of(self.object)
    }

    /// The policy lookup for the request.
    pub(crate) fn scope(&self, context: &AdmissionContext<'a>) -> PolicyScope<'a, 'a> {
        PolicyScope::new(
            context.policies,
            self.namespace,
            context.namespace_labels,
            context.spawner,
        )
    }

    /// The inputs of templates for the request's Task. The user of a Job is Kelos, which templates do not see.
    pub(crate) fn template_input(&self, context: &AdmissionContext<'a>) -> TemplateInput<'a> {
        TemplateInput {
            object: self.task_object(context),
            namespace: self.namespace,
            namespace_labels: context.namespace_labels,
            spawner: context.spawner,
            workspace: context.workspace.info(),
            user: (self.kind == Kind::Task).then_some(self.user),
            source_fields: None,
        }
    }
}

/// A request together with the policies that apply to it.
#[derive(Clone, Debug)]
pub struct Governed<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) context: &'a AdmissionContext<'a>,
    pub(crate) task: Option<Task<'a>>,
    pub(crate) sections: Sections<'a>,
    /// The findings of the metadata sections.
    pub(crate) metadata: Vec<Finding<'a>>,
    /// Why the policy's `itemKey` gives nothing.
    pub(crate) item_key_error: Option<String>,
    /// Whether the identity comes from the policy's `itemKey`.
    pub(crate) key_was_rendered: bool,
    /// The work that templates may still take.
    pub(crate) budget: Budget,
    pub(crate) item: Option<ItemIdentity>,
}

impl Governed<'_> {
    /// The work item whose status the decision needs, if it needs one.
    pub fn item(&self) -> Option<&ItemIdentity> {
        let matched = self.sections.failure?;
        let limited = matched.rule.max_retries_per_item > 0 || matched.rule.backoff.is_some();
        let asked = match self.request.kind {
            Kind::Task => self.request.phase == Phase::Validating,
            Kind::Job => matched.mode == Mode::Enforce,
            _ => false,
        };
        self.item.as_ref().filter(|_| limited && asked)
    }

    /// The work item that the Task belongs to, if a failure section applies.
    pub fn identity(&self) -> Option<&ItemIdentity> {
        self.item.as_ref()
    }

    /// Whether the failure section is enforced. Otherwise a cached status is enough.
    pub fn is_enforced(&self) -> bool {
        self.sections
            .failure
            .is_some_and(|matched| matched.mode == Mode::Enforce)
    }
}
