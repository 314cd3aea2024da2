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
pub(crate) struct RbacRight {
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

impl RbacRight {
    /// The right, limited to these objects.
    const fn only(self, names: &'static [Name]) -> Self {
        Self { names, ..self }
    }
}

/// A row of the tables below.
const fn right(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> RbacRight {
    RbacRight {
        why,
        group,
        resources,
        names: &[],
        verbs,
    }
}

const READ: &[&str] = &["get", "list", "watch"];

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
#[rustfmt::skip]
pub(crate) const CLUSTER: &[RbacRight] = &[
    right(GROUP, &["taskpolicies", "clustertaskpolicies"], READ, "policies decide about Tasks"),
    right(GROUP, &["taskpolicies/status", "clustertaskpolicies/status"], &["patch"], "the status of policies"),
    right(GROUP, &["workitems"], &["create", "delete", "get", "list", "patch", "watch"],
        "the attempt records of items"),
    right(GROUP, &["workitems/status"], &["patch"], "the attempt records of items"),
    right(kelos::GROUP, &["tasks"], &["delete", "get", "list", "patch", "watch"],
        "finalizer, TTL and cancellation of Tasks"),
    right(kelos::GROUP, &["tasks/status", "taskspawners/status"], &["patch"], "conditions of Tasks and spawners"),
    right(kelos::GROUP, &["taskspawners", "workspaces"], READ,
        "policies select Tasks by spawner; templates and issue sources read spawners and Workspaces"),
    right(kelos::GROUP, &["agentconfigs"], &["get"], "whether Kelos can still create the Job of a Task"),
    right("batch", &["jobs"], &["delete", "get", "list", "patch", "watch"],
        "Jobs of Tasks: their state in the queue; the Job of a cancelled Task is failed and deleted"),
    right("batch", &["jobs/status"], &["patch"], "a Job that must not run is failed through its status"),
    right("", &["pods"], &["get", "list", "patch"],
        "the failure cause of a Job; the grace period of a cancellation, and the protocol of worker pools"),
    right("", &["namespaces"], READ, "policies select by the labels of namespaces"),
    right("events.k8s.io", &["events"], &["create", "patch"], "Events of Tasks and items"),
    right("authorization.k8s.io", &["subjectaccessreviews"], &["create"],
        "taskgate does for a user only what the user may do: to cancel a Task takes the right to delete it; to retry it, or to override a policy, also the right to create it"),
    right("apiextensions.k8s.io", &["customresourcedefinitions"], READ,
        "the capabilities of the installed Kelos CRD, and whether Foreman and Kueue are installed").only(&CRDS),
    right("admissionregistration.k8s.io", &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"], &["get", "list", "patch", "watch"],
        "the caBundle of our own webhook configurations").only(&[Name::Configuration]),
];

/// In the whole cluster, for one feature each.
pub(crate) const FEATURES: [(Feature, &[RbacRight]); 3] = [
    (Feature::Kueue, KUEUE),
    (Feature::Foreman, FOREMAN),
    (Feature::TaskRetry, TASK_RETRY),
];

#[rustfmt::skip]
const KUEUE: &[RbacRight] = &[
    right(kueue::GROUP, &["localqueues", "workloadpriorityclasses"], READ, "whether queue and priority class exist"),
    right(kueue::GROUP, &["workloads"], &["list", "watch"], "the admission of Jobs by Kueue"),
    right("", &["configmaps"], &["get"], "which namespaces Kueue manages").only(&[Name::KueueConfig]),
];

#[rustfmt::skip]
const FOREMAN: &[RbacRight] = &[
    right("foreman.llmkube.dev", &["workloads"], &["create", "delete", "get", "list", "watch"],
        "retry of Workloads: each attempt is a new object; Workloads are never changed"),
    right("foreman.llmkube.dev", &["agentictasks"], &["get", "list"], "the results of a Workload's attempts"),
];

#[rustfmt::skip]
const TASK_RETRY: &[RbacRight] = &[
    right(kelos::GROUP, &["tasks"], &["create"], "the successor of a Task that failed"),
];

/// The rights that an installation needs in the whole cluster.
pub(crate) fn cluster(names: &Names) -> impl Iterator<Item = &'static RbacRight> {
    let features = FEATURES.iter().filter(|(feature, _)| !names.without.contains(feature));
    CLUSTER.iter().chain(features.flat_map(|(_, rights)| *rights))
}

/// In taskgate's own namespace.
#[rustfmt::skip]
pub(crate) const NAMESPACE: &[RbacRight] = &[
    right("", &["secrets"], &["create"], "RBAC cannot limit `create` to a name"),
    right("", &["secrets"], &["get", "list", "update", "watch"],
        "the certificate that taskgate issues").only(&[Name::Certificate]),
    right("", &["secrets"], READ, "the certificate that cert-manager issues").only(&[Name::Issued]),
    right("", &["configmaps"], &["delete", "get", "list", "watch"],
        "`taskgate disable`, and the end of its period").only(&[Name::Fixed("taskgate-disabled")]),
    right("coordination.k8s.io", &["leases"], &["create"], "RBAC cannot limit `create` to a name"),
    right("coordination.k8s.io", &["leases"], &["get", "update"],
        "which replica runs the controller").only(&[Name::Lease]),
];
