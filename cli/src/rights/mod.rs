//! What taskgate may do in a cluster, and why. One table, from which the roles in `manifests/` and `docs/rbac.md` are made,
//! and which is compared with what the API server says that we may ([`review`]).
//!
//! A concern that needs a further right adds it here, with the reason, and runs `make manifests`.

pub(crate) mod limits;
pub(crate) mod manifest;
pub(crate) mod questions;
pub(crate) mod review;

use taskgate_api::{GROUP, kelos, kueue};

/// Verbs on some resources of one API group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right {
    /// What it is for; it stands in the roles as a comment.
    pub(crate) why: &'static str,
    /// The API group; empty for the core one.
    pub(crate) group: &'static str,
    /// The resources, subresources included.
    pub(crate) resources: &'static [&'static str],
    /// The objects that it is limited to; empty: all of them.
    pub(crate) names: &'static [Name],
    /// The verbs.
    pub(crate) verbs: &'static [&'static str],
}

/// An object that a right is limited to, as the installation calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// It is called the same everywhere.
    Fixed(&'static str),
    /// Both webhook configurations.
    Configuration,
    /// The Secret with the certificate that taskgate makes.
    Certificate,
    /// The Secret with the certificate that cert-manager makes.
    Issued,
    /// The Lease of the leader.
    Lease,
    /// The ConfigMap with Kueue's configuration.
    KueueConfig,
}

/// A feature that an installation may do without, and whose rights are then not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Queueing of Jobs through Kueue.
    Kueue,
    /// Retry of Foreman's Workloads.
    Foreman,
    /// Retry of Tasks.
    TaskRetry,
}

impl Feature {
    /// What the values of the chart call it.
    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Kueue => "kueue",
            Self::Foreman => "foreman",
            Self::TaskRetry => "taskRetry",
        }
    }

    /// What follows taskgate's name in the name of its ClusterRole, and `--no-` in the flag of `serve`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Kueue => "kueue",
            Self::Foreman => "foreman",
            Self::TaskRetry => "task-retry",
        }
    }
}

/// What an installation calls its objects, and which features it does without.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The features that are disabled.
    pub(crate) without: Vec<Feature>,
    /// [`Name::Configuration`].
    pub(crate) configuration: String,
    /// [`Name::Certificate`].
    pub(crate) certificate: String,
    /// [`Name::Issued`].
    pub(crate) issued: String,
    /// [`Name::Lease`].
    pub(crate) lease: String,
    /// [`Name::KueueConfig`].
    pub(crate) kueue_config: String,
}

impl Names {
    /// What `name` is called here.
    pub(crate) fn of(&self, name: Name) -> &str {
        match name {
            Name::Fixed(name) => name,
            Name::Configuration => &self.configuration,
            Name::Certificate => &self.certificate,
            Name::Issued => &self.issued,
            Name::Lease => &self.lease,
            Name::KueueConfig => &self.kueue_config,
        }
    }
}

/// The CRDs that are looked at to learn what the cluster knows.
const CRDS: [Name; 3] = [
    Name::Fixed("tasks.kelos.dev"),
    Name::Fixed("workloads.foreman.llmkube.dev"),
    Name::Fixed("workloads.kueue.x-k8s.io"),
];

/// In the whole cluster, whatever is enabled. Nothing here reads a Secret.
pub(crate) const CLUSTER: &[Right] = &[
    Right {
        why: "policies decide about Tasks, and say in their status what is wrong with them",
        group: GROUP,
        resources: &["taskpolicies", "clustertaskpolicies"],
        names: &[],
        verbs: &["get", "list", "watch"],
    },
    Right {
        why: "the status of policies",
        group: GROUP,
        resources: &["taskpolicies/status", "clustertaskpolicies/status"],
        names: &[],
        verbs: &["patch"],
    },
    Right {
        why: "the memory of items",
        group: GROUP,
        resources: &["workitems"],
        names: &[],
        verbs: &["create", "delete", "get", "list", "patch", "watch"],
    },
    Right {
        why: "the memory of items",
        group: GROUP,
        resources: &["workitems/status"],
        names: &[],
        verbs: &["update"],
    },
    Right {
        why: "finalizer, TTL and cancellation of Tasks",
        group: kelos::GROUP,
        resources: &["tasks"],
        names: &[],
        verbs: &["delete", "get", "list", "patch", "watch"],
    },
    Right {
        why: "conditions of Tasks and spawners",
        group: kelos::GROUP,
        resources: &["tasks/status", "taskspawners/status"],
        names: &[],
        verbs: &["patch"],
    },
    Right {
        why: "where Tasks come from: policies select by spawners, templates and sources read them",
        group: kelos::GROUP,
        resources: &["taskspawners", "workspaces"],
        names: &[],
        verbs: &["get", "list", "watch"],
    },
    Right {
        why: "whether a Task without a Job can still get one",
        group: kelos::GROUP,
        resources: &["agentconfigs"],
        names: &[],
        verbs: &["get"],
    },
    Right {
        why: "Jobs of Tasks: where they stand in the queue; a cancelled one is failed and removed",
        group: "batch",
        resources: &["jobs"],
        names: &[],
        verbs: &["delete", "get", "list", "patch", "watch"],
    },
    Right {
        why: "a Job that must not run is failed through its status",
        group: "batch",
        resources: &["jobs/status"],
        names: &[],
        verbs: &["patch"],
    },
    Right {
        why: "why a Job failed; the warning before a cancellation, and the protocol of worker pools",
        group: "",
        resources: &["pods"],
        names: &[],
        verbs: &["get", "list", "patch"],
    },
    Right {
        why: "policies select by the labels of namespaces",
        group: "",
        resources: &["namespaces"],
        names: &[],
        verbs: &["get", "list", "watch"],
    },
    Right {
        why: "what happens to Tasks and items is told in Events",
        group: "events.k8s.io",
        resources: &["events"],
        names: &[],
        verbs: &["create", "patch"],
    },
    Right {
        why: "taskgate does for a user only what they may do: to cancel a Task takes the right to delete it, to have it run again that and to create it, as do overrides of a policy",
        group: "authorization.k8s.io",
        resources: &["subjectaccessreviews"],
        names: &[],
        verbs: &["create"],
    },
    Right {
        why: "which fields this Kelos has, and whether Foreman and Kueue are installed",
        group: "apiextensions.k8s.io",
        resources: &["customresourcedefinitions"],
        names: &CRDS,
        verbs: &["get", "list", "watch"],
    },
    Right {
        why: "the caBundle of our own webhook configurations",
        group: "admissionregistration.k8s.io",
        resources: &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        names: &[Name::Configuration],
        verbs: &["get", "list", "patch", "watch"],
    },
];

/// In the whole cluster, for one feature each.
pub(crate) const FEATURES: [(Feature, &[Right]); 3] = [
    (Feature::Kueue, KUEUE),
    (Feature::Foreman, FOREMAN),
    (Feature::TaskRetry, TASK_RETRY),
];

const KUEUE: &[Right] = &[
    Right {
        why: "whether queue and priority class exist",
        group: kueue::GROUP,
        resources: &["localqueues", "workloadpriorityclasses"],
        names: &[],
        verbs: &["get", "list", "watch"],
    },
    Right {
        why: "what Kueue says of a Job",
        group: kueue::GROUP,
        resources: &["workloads"],
        names: &[],
        verbs: &["list", "watch"],
    },
    Right {
        why: "which namespaces Kueue manages",
        group: "",
        resources: &["configmaps"],
        names: &[Name::KueueConfig],
        verbs: &["get"],
    },
];

const FOREMAN: &[Right] = &[
    Right {
        why: "retry of Workloads: each attempt is a new object; none is ever changed",
        group: "foreman.llmkube.dev",
        resources: &["workloads"],
        names: &[],
        verbs: &["create", "delete", "get", "list", "watch"],
    },
    Right {
        why: "what the attempts of a Workload came to",
        group: "foreman.llmkube.dev",
        resources: &["agentictasks"],
        names: &[],
        verbs: &["get", "list"],
    },
];

const TASK_RETRY: &[Right] = &[Right {
    why: "the successor of a Task that failed",
    group: kelos::GROUP,
    resources: &["tasks"],
    names: &[],
    verbs: &["create"],
}];

/// Everything that an installation needs in the whole cluster.
pub(crate) fn cluster(names: &Names) -> impl Iterator<Item = &'static Right> {
    let features = FEATURES.iter().filter(|(feature, _)| !names.without.contains(feature));
    CLUSTER.iter().chain(features.flat_map(|(_, rights)| *rights))
}

/// In taskgate's own namespace.
pub(crate) const NAMESPACE: &[Right] = &[
    Right {
        why: "RBAC knows no name of what is created",
        group: "",
        resources: &["secrets"],
        names: &[],
        verbs: &["create"],
    },
    Right {
        why: "the certificate that taskgate makes",
        group: "",
        resources: &["secrets"],
        names: &[Name::Certificate],
        verbs: &["get", "list", "update", "watch"],
    },
    Right {
        why: "the certificate that cert-manager makes",
        group: "",
        resources: &["secrets"],
        names: &[Name::Issued],
        verbs: &["get", "list", "watch"],
    },
    Right {
        why: "`taskgate disable`, and its end",
        group: "",
        resources: &["configmaps"],
        names: &[Name::Fixed("taskgate-disabled")],
        verbs: &["delete", "get", "list", "watch"],
    },
    Right {
        why: "RBAC knows no name of what is created",
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &[],
        verbs: &["create"],
    },
    Right {
        why: "which replica runs the controller",
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &[Name::Lease],
        verbs: &["get", "update"],
    },
];
