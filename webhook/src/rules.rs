//! Which requests reach us. The registration and the router are both built from [`ENDPOINTS`], so they cannot drift.

use taskgate_api::kelos;
pub use taskgate_api::keys::EXCLUDED_NAMESPACES;
use taskgate_policy::{Kind, Operation, Phase};

/// The name of both webhook configurations. Configurations run in the order of their names: ours comes before `kueue-…`, so
/// that Kueue sees the queue label and the suspension that we set (C14).
pub const CONFIGURATION: &str = "admission.taskgate.dev";

/// One path, and what the API server sends there.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// The path.
    pub path: &'static str,
    /// The webhook's name, which its audit annotations start with.
    pub webhook: &'static str,
    /// Whether it may change objects.
    pub phase: Phase,
    /// The kinds that are sent there.
    pub admitted: &'static [Admitted],
    /// The operations that are sent there.
    pub operations: &'static [Operation],
    /// Whose objects they are, which decides what a failure means.
    pub owner: Owner,
    /// What else the API server is to look at before it sends anything.
    pub guard: Guard,
}

/// A kind of object.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    /// The API group.
    pub group: &'static str,
    /// The versions.
    pub versions: &'static [&'static str],
    /// The kind's name.
    pub name: &'static str,
    /// The plural that rules name it by, with the subresource where that is what is sent.
    pub resource: &'static str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// The kind as the decision core knows it.
    pub kind: Kind,
}

/// Whose objects an endpoint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Somebody else's: their creation must not hang on us unless the operator wants that.
    Foreign,
    /// Taskgate's own: a policy that nobody checked must not be stored.
    Taskgate,
}

/// What narrows an endpoint further, evaluated in the API server (C11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing but that the object is not being deleted (C12).
    Alive,
    /// Also that it is a Job of a Kelos Task.
    JobOfTask,
    /// Also that the annotations about a Task's cancellation change. Of a Task's updates no other reaches the mutating phase.
    Cancellation,
    /// Also that they change, or a label or annotation that only taskgate sets. Of the updates of Tasks and Jobs no other
    /// reaches the validating phase.
    OwnKeys,
    /// Also that an annotation changes that asks something of a `WorkItem`, or says who asked.
    Requests,
}

const TASK: Admitted = Admitted {
    group: kelos::GROUP,
    versions: &kelos::TASK_VERSIONS,
    name: "Task",
    resource: kelos::TASKS,
    namespaced: true,
    kind: Kind::Task,
};
const JOB: Admitted = Admitted {
    group: "batch",
    versions: &["v1"],
    name: "Job",
    resource: "jobs",
    namespaced: true,
    kind: Kind::Job,
};
const TASK_POLICY: Admitted = Admitted {
    group: taskgate_api::GROUP,
    versions: &[taskgate_api::VERSION],
    name: "TaskPolicy",
    resource: "taskpolicies",
    namespaced: true,
    kind: Kind::TaskPolicy,
};
const CLUSTER_TASK_POLICY: Admitted = Admitted {
    group: taskgate_api::GROUP,
    versions: &[taskgate_api::VERSION],
    name: "ClusterTaskPolicy",
    resource: "clustertaskpolicies",
    namespaced: false,
    kind: Kind::ClusterTaskPolicy,
};
const WORK_ITEM: Admitted = Admitted {
    group: taskgate_api::GROUP,
    versions: &[taskgate_api::VERSION],
    name: "WorkItem",
    resource: "workitems",
    namespaced: true,
    kind: Kind::WorkItem,
};
const WORK_ITEM_STATUS: Admitted = Admitted {
    resource: "workitems/status",
    kind: Kind::WorkItemStatus,
    ..WORK_ITEM
};

/// Everything that is sent to us.
///
/// Tasks and Jobs only when they are created: their specs are immutable afterwards (Tasks), or Kueue's to change (Jobs,
/// C15). And cancellations: who asks for one is known to admission alone. A request that nobody checked must not be stored,
/// and no other write is held up by that: hence its owner.
///
/// The status of `WorkItem`s is written by taskgate alone. That is decided here and not in RBAC: roles that let people edit
/// everything in a namespace (`edit`, `admin`, wildcards) are common.
pub const ENDPOINTS: [Endpoint; 10] = [
    Endpoint {
        path: "/mutate/tasks",
        webhook: "mutate.tasks.taskgate.dev",
        phase: Phase::Mutating,
        admitted: &[TASK],
        operations: &[Operation::Create],
        owner: Owner::Foreign,
        guard: Guard::Alive,
    },
    Endpoint {
        path: "/mutate/jobs",
        webhook: "mutate.jobs.taskgate.dev",
        phase: Phase::Mutating,
        admitted: &[JOB],
        operations: &[Operation::Create],
        owner: Owner::Foreign,
        guard: Guard::JobOfTask,
    },
    Endpoint {
        path: "/mutate/cancellations",
        webhook: "mutate.cancellations.taskgate.dev",
        phase: Phase::Mutating,
        admitted: &[TASK],
        operations: &[Operation::Create, Operation::Update],
        owner: Owner::Taskgate,
        guard: Guard::Cancellation,
    },
    Endpoint {
        path: "/validate/cancellations",
        webhook: "validate.cancellations.taskgate.dev",
        phase: Phase::Validating,
        admitted: &[TASK, JOB],
        operations: &[Operation::Update],
        owner: Owner::Taskgate,
        guard: Guard::OwnKeys,
    },
    Endpoint {
        path: "/validate/tasks",
        webhook: "validate.tasks.taskgate.dev",
        phase: Phase::Validating,
        admitted: &[TASK],
        operations: &[Operation::Create],
        owner: Owner::Foreign,
        guard: Guard::Alive,
    },
    Endpoint {
        path: "/validate/jobs",
        webhook: "validate.jobs.taskgate.dev",
        phase: Phase::Validating,
        admitted: &[JOB],
        operations: &[Operation::Create],
        owner: Owner::Foreign,
        guard: Guard::JobOfTask,
    },
    Endpoint {
        path: "/validate/policies",
        webhook: "validate.policies.taskgate.dev",
        phase: Phase::Validating,
        admitted: &[TASK_POLICY, CLUSTER_TASK_POLICY],
        operations: &[Operation::Create, Operation::Update],
        owner: Owner::Taskgate,
        guard: Guard::Alive,
    },
    Endpoint {
        path: "/validate/workitems",
        webhook: "validate.workitems.taskgate.dev",
        phase: Phase::Validating,
        admitted: &[WORK_ITEM],
        operations: &[Operation::Create, Operation::Update],
        owner: Owner::Taskgate,
        guard: Guard::Alive,
    },
    Endpoint {
        path: "/mutate/workitems",
        webhook: "mutate.workitems.taskgate.dev",
        phase: Phase::Mutating,
        admitted: &[WORK_ITEM],
        operations: &[Operation::Create, Operation::Update],
        owner: Owner::Taskgate,
        guard: Guard::Requests,
    },
    Endpoint {
        path: "/validate/workitems/status",
        webhook: "status.workitems.taskgate.dev",
        phase: Phase::Validating,
        admitted: &[WORK_ITEM_STATUS],
        operations: &[Operation::Update],
        owner: Owner::Taskgate,
        guard: Guard::Alive,
    },
];

impl Endpoint {
    /// The kind that `group`/`version` `name` is, if it belongs here.
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
