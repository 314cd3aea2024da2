//! The rights that taskgate needs in a cluster, and why. The roles in `manifests/` and `docs/rbac.md` are generated from this
//! table, and [`review`] compares it with what the API server grants.
//!
//! A feature that needs another right adds it here, with the reason, and runs `make manifests`.

pub(crate) mod limits;
pub(crate) mod manifest;
pub(crate) mod permissions;
pub(crate) mod review;

use taskgate_api::{GROUP, kelos, kueue};

use crate::defaults;

/// Verbs on some resources of one API group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right {
    /// Its purpose, which the roles have as a comment.
    pub(crate) why: &'static str,
    /// The API group; empty for the core one.
    pub(crate) group: &'static str,
    /// The resources, subresources included.
    pub(crate) resources: &'static [&'static str],
    /// The objects that it is limited to; empty: all.
    pub(crate) names: &'static [Name],
    /// The verbs.
    pub(crate) verbs: &'static [&'static str],
}

/// The name of an object that a right is limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// The same in every installation.
    Fixed(&'static str),
    /// Both webhook configurations.
    Configuration,
    /// The Secret with the certificate that taskgate issues.
    Certificate,
    /// The Secret with the certificate that cert-manager issues.
    Issued,
    /// The Lease of the leader.
    Lease,
    /// The ConfigMap with Kueue's configuration.
    KueueConfig,
}

/// A feature that an installation can disable; its rights are then not granted.
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
    /// Its name in the values of the chart.
    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Kueue => "kueue",
            Self::Foreman => "foreman",
            Self::TaskRetry => "taskRetry",
        }
    }

    /// Its suffix in the name of its ClusterRole, and behind `--no-` in the flag of `serve`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Kueue => "kueue",
            Self::Foreman => "foreman",
            Self::TaskRetry => "task-retry",
        }
    }
}

/// The names of an installation's objects, and the features that it disables.
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

impl Default for Names {
    fn default() -> Self {
        Self {
            without: Vec::new(),
            configuration: taskgate_webhook::rules::CONFIGURATION.to_owned(),
            certificate: defaults::CERTIFICATE.to_owned(),
            issued: defaults::ISSUED.to_owned(),
            lease: defaults::LEASE.to_owned(),
            kueue_config: kueue::ConfigRef::default().name,
        }
    }
}

impl Names {
    /// `name` in this installation.
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

/// The CRDs that are read for the capabilities of the installed systems.
const CRDS: [Name; 3] = [
    Name::Fixed("tasks.kelos.dev"),
    Name::Fixed("workloads.foreman.llmkube.dev"),
    Name::Fixed("workloads.kueue.x-k8s.io"),
];

/// In the whole cluster, for every installation. None reads a Secret.
pub(crate) const CLUSTER: &[Right] = &[
    Right {
        why: "policies decide about Tasks",
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
        why: "the attempt records of items",
        group: GROUP,
        resources: &["workitems"],
        names: &[],
        verbs: &["create", "delete", "get", "list", "patch", "watch"],
    },
    Right {
        why: "the attempt records of items",
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
        why: "policies select Tasks by spawner; templates and issue sources read spawners and Workspaces",
        group: kelos::GROUP,
        resources: &["taskspawners", "workspaces"],
        names: &[],
        verbs: &["get", "list", "watch"],
    },
    Right {
        why: "whether Kelos can still create the Job of a Task",
        group: kelos::GROUP,
        resources: &["agentconfigs"],
        names: &[],
        verbs: &["get"],
    },
    Right {
        why: "Jobs of Tasks: their state in the queue; the Job of a cancelled Task is failed and deleted",
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
        why: "the failure cause of a Job; the grace period of a cancellation, and the protocol of worker pools",
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
        why: "Events of Tasks and items",
        group: "events.k8s.io",
        resources: &["events"],
        names: &[],
        verbs: &["create", "patch"],
    },
    Right {
        why: "taskgate does for a user only what the user may do: to cancel a Task takes the right to delete it; to retry it, or to override a policy, also the right to create it",
        group: "authorization.k8s.io",
        resources: &["subjectaccessreviews"],
        names: &[],
        verbs: &["create"],
    },
    Right {
        why: "the capabilities of the installed Kelos CRD, and whether Foreman and Kueue are installed",
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
        why: "the admission of Jobs by Kueue",
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
        why: "retry of Workloads: each attempt is a new object; Workloads are never changed",
        group: "foreman.llmkube.dev",
        resources: &["workloads"],
        names: &[],
        verbs: &["create", "delete", "get", "list", "watch"],
    },
    Right {
        why: "the results of a Workload's attempts",
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

/// The rights that an installation needs in the whole cluster.
pub(crate) fn cluster(names: &Names) -> impl Iterator<Item = &'static Right> {
    let features = FEATURES.iter().filter(|(feature, _)| !names.without.contains(feature));
    CLUSTER.iter().chain(features.flat_map(|(_, rights)| *rights))
}

/// In taskgate's own namespace.
pub(crate) const NAMESPACE: &[Right] = &[
    Right {
        why: "RBAC cannot limit `create` to a name",
        group: "",
        resources: &["secrets"],
        names: &[],
        verbs: &["create"],
    },
    Right {
        why: "the certificate that taskgate issues",
        group: "",
        resources: &["secrets"],
        names: &[Name::Certificate],
        verbs: &["get", "list", "update", "watch"],
    },
    Right {
        why: "the certificate that cert-manager issues",
        group: "",
        resources: &["secrets"],
        names: &[Name::Issued],
        verbs: &["get", "list", "watch"],
    },
    Right {
        why: "`taskgate disable`, and the end of its period",
        group: "",
        resources: &["configmaps"],
        names: &[Name::Fixed("taskgate-disabled")],
        verbs: &["delete", "get", "list", "watch"],
    },
    Right {
        why: "RBAC cannot limit `create` to a name",
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
