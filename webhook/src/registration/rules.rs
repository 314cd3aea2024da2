//! The endpoints: which requests the API server sends to which path. The registration and the router are both built from
//! [`ENDPOINTS`], so that they cannot drift.

use taskgate_api::kelos;
pub use taskgate_api::keys::EXCLUDED_NAMESPACES;
use taskgate_policy::{
    Kind,
    Operation::{self, Create, Update},
    Phase::{self, Mutating, Validating},
};

use self::{
    ObjectOwner::{Foreign, Kelos, Taskgate},
    RequestFilter::{
        AppliedAgain, Cancellation, JobOfTask, KelosDrops, KelosFields, NotBeingDeleted, OwnKeys, WorkItemRequests,
    },
};

/// The name of both webhook configurations. Configurations run in the order of their names: ours sorts before `kueue-…`, so
/// that Kueue sees the queue label and the suspension that admission sets (C14).
pub const CONFIGURATION: &str = "admission.taskgate.dev";

/// One path, and the requests that the API server sends to it.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// The path.
    pub path: &'static str,
    /// The webhook's name, which its audit annotations start with.
    pub webhook: &'static str,
    /// Whether it mutates or validates.
    pub phase: Phase,
    /// The kinds that it admits.
    pub admitted: &'static [AdmittedKind],
    /// The operations that it admits.
    pub operations: &'static [Operation],
    /// Whose objects they are, which selects the failure policy.
    pub owner: ObjectOwner,
    /// Which of these requests the API server sends.
    pub filter: RequestFilter,
}

/// A kind of object that an endpoint admits.
#[derive(Clone, Copy, Debug)]
pub struct AdmittedKind {
    /// The API group.
    pub group: &'static str,
    /// The versions.
    pub versions: &'static [&'static str],
    /// The kind's name.
    pub name: &'static str,
    /// The plural in rules, with the subresource if the rule is about that.
    pub resource: &'static str,
    /// Whether the kind is namespaced.
    pub namespaced: bool,
    /// The kind in the policy crate.
    pub kind: Kind,
}

/// The owner of the objects of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectOwner {
    /// Another project: creating its objects does not depend on taskgate, unless the operator wants that.
    Foreign,
    /// taskgate: an unchecked policy must not be stored.
    Taskgate,
    /// Kelos, which writes them itself: its writes never depend on taskgate.
    Kelos,
}

/// The selectors and match conditions of an endpoint, which the API server evaluates (C11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFilter {
    /// The stored object is not being deleted (C12). The other filters include this one.
    NotBeingDeleted,
    /// An update of a Task sends what admission moved out of its spec again, or leaves out keys that only taskgate sets.
    AppliedAgain,
    /// The object has the label of the Job of a Kelos Task.
    JobOfTask,
    /// An annotation about a Task's cancellation changes.
    Cancellation,
    /// Such an annotation changes, or a label or annotation that only taskgate sets. No other update of a Task or Job reaches the
    /// validating phase.
    OwnKeys,
    /// An annotation changes that requests an action on a `WorkItem`, or names the requester.
    WorkItemRequests,
    /// A user changes a field that taskgate adds to Kelos' kinds, or its copy.
    KelosFields,
    /// Kelos writes an object without a field that taskgate adds to its kinds and that the stored object has.
    KelosDrops,
}

const TASK: AdmittedKind = AdmittedKind {
    group: kelos::GROUP,
    versions: &kelos::TASK_VERSIONS,
    name: "Task",
    resource: kelos::TASKS,
    namespaced: true,
    kind: Kind::Task,
};
const JOB: AdmittedKind = AdmittedKind {
    group: "batch",
    versions: &["v1"],
    name: "Job",
    resource: "jobs",
    kind: Kind::Job,
    ..TASK
};
const TASK_STATUS: AdmittedKind = AdmittedKind {
    resource: "tasks/status",
    ..TASK
};
const TASK_SPAWNER: AdmittedKind = AdmittedKind {
    name: "TaskSpawner",
    resource: "taskspawners",
    kind: Kind::TaskSpawner,
    ..TASK
};
const TASK_SPAWNER_STATUS: AdmittedKind = AdmittedKind {
    resource: "taskspawners/status",
    ..TASK_SPAWNER
};
const TASK_POLICY: AdmittedKind = own("TaskPolicy", "taskpolicies", Kind::TaskPolicy);
const CLUSTER_TASK_POLICY: AdmittedKind = AdmittedKind {
    namespaced: false,
    ..own("ClusterTaskPolicy", "clustertaskpolicies", Kind::ClusterTaskPolicy)
};
const WORK_ITEM: AdmittedKind = own("WorkItem", "workitems", Kind::WorkItem);
const WORK_ITEM_STATUS: AdmittedKind = own("WorkItem", "workitems/status", Kind::WorkItemStatus);

/// A namespaced kind of taskgate itself.
const fn own(name: &'static str, resource: &'static str, kind: Kind) -> AdmittedKind {
    AdmittedKind {
        group: taskgate_api::GROUP,
        versions: &[taskgate_api::VERSION],
        name,
        resource,
        namespaced: true,
        kind,
    }
}

/// A row of the table below.
const fn endpoint(
    phase: Phase,
    path: &'static str,
    webhook: &'static str,
    admitted: &'static [AdmittedKind],
    operations: &'static [Operation],
    owner: ObjectOwner,
    filter: RequestFilter,
) -> Endpoint {
    Endpoint {
        path,
        webhook,
        phase,
        admitted,
        operations,
        owner,
        filter,
    }
}

/// All endpoints.
///
/// Tasks and Jobs are reviewed when they are created: afterwards a Task's spec is immutable, and a Job's is Kueue's to change
/// (C15). Only a Task that is applied again, with what admission moved out of its spec, is reviewed again. A Job is reviewed once,
/// because it is never denied; the API server sends it again if a later webhook changes it.
/// Cancellations are reviewed because only admission knows the requester. An unchecked one must not be stored, and the
/// filter delays no other write: hence their owner is taskgate.
///
/// Only taskgate writes the status of `WorkItem`s. An endpoint enforces that rather than RBAC, because roles that allow editing
/// everything in a namespace (`edit`, `admin`, wildcards) are common.
///
/// The fields that taskgate adds to Kelos' kinds are policies: as with those, no user's write is stored unseen. What Kelos drops is
/// restored while taskgate is available; otherwise the leader restores it later.
#[rustfmt::skip]
pub const ENDPOINTS: [Endpoint; 12] = [
    endpoint(Mutating, "/mutate/tasks", "mutate.tasks.taskgate.dev", &[TASK], &[Create], Foreign, NotBeingDeleted),
    endpoint(Mutating, "/mutate/task-updates", "mutate.task-updates.taskgate.dev", &[TASK], &[Update], Foreign, AppliedAgain),
    endpoint(Mutating, "/mutate/jobs", "mutate.jobs.taskgate.dev", &[JOB], &[Create], Foreign, JobOfTask),
    endpoint(Mutating, "/mutate/cancellations", "mutate.cancellations.taskgate.dev", &[TASK], &[Create, Update],
        Taskgate, Cancellation),
    endpoint(Validating, "/validate/cancellations", "validate.cancellations.taskgate.dev", &[TASK, JOB], &[Update],
        Taskgate, OwnKeys),
    endpoint(Validating, "/validate/tasks", "validate.tasks.taskgate.dev", &[TASK], &[Create], Foreign, NotBeingDeleted),
    endpoint(Validating, "/validate/policies", "validate.policies.taskgate.dev", &[TASK_POLICY, CLUSTER_TASK_POLICY],
        &[Create, Update], Taskgate, NotBeingDeleted),
    endpoint(Validating, "/validate/workitems", "validate.workitems.taskgate.dev", &[WORK_ITEM], &[Create, Update],
        Taskgate, NotBeingDeleted),
    endpoint(Mutating, "/mutate/workitems", "mutate.workitems.taskgate.dev", &[WORK_ITEM], &[Create, Update],
        Taskgate, WorkItemRequests),
    endpoint(Validating, "/validate/workitems/status", "status.workitems.taskgate.dev", &[WORK_ITEM_STATUS], &[Update],
        Taskgate, NotBeingDeleted),
    endpoint(Mutating, "/mutate/taskspawners", "mutate.taskspawners.taskgate.dev", &[TASK_SPAWNER, TASK_SPAWNER_STATUS],
        &[Create, Update], Taskgate, KelosFields),
    endpoint(Mutating, "/mutate/kelos-writes", "mutate.kelos-writes.taskgate.dev",
        &[TASK_SPAWNER, TASK_SPAWNER_STATUS, TASK_STATUS], &[Update], Kelos, KelosDrops),
];

impl Endpoint {
    /// The kind `group`/`version` `name`, if this endpoint admits it.
    pub fn kind_of(&self, group: &str, version: &str, name: &str) -> Option<Kind> {
        self.admitted
            .iter()
            .find(|admitted| admitted.group == group && admitted.name == name && admitted.versions.contains(&version))
            .map(|admitted| admitted.kind)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn paths_and_webhook_names_are_unique() {
        let paths: HashSet<_> = ENDPOINTS.iter().map(|endpoint| endpoint.path).collect();
        let webhooks: HashSet<_> = ENDPOINTS.iter().map(|endpoint| endpoint.webhook).collect();
        assert_eq!((paths.len(), webhooks.len()), (ENDPOINTS.len(), ENDPOINTS.len()));
    }

    #[test]
    fn an_endpoint_knows_only_its_own_kinds_and_versions() {
        let [tasks, ..] = &ENDPOINTS;
        assert_eq!(tasks.kind_of("kelos.dev", "v1alpha1", "Task"), Some(Kind::Task));
        assert_eq!(tasks.kind_of("kelos.dev", "v1", "Task"), None);
        assert_eq!(tasks.kind_of("batch", "v1", "Job"), None);
    }
}
