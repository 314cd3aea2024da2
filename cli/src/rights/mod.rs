//! The rights that taskgate needs in a cluster, and why: `roles.yaml` has them, and `limits.yaml` what taskgate may not do with them.
//! [`manifest`] fills in both files for the manifests and the chart, and [`review`] compares the roles with what the API server grants.
//!
//! A feature that needs another right adds it to `roles.yaml`, with the reason, and runs `make manifests`.

pub(crate) mod manifest;
pub(crate) mod review;

use std::sync::LazyLock;

use serde::Deserialize;
use taskgate_api::kueue;

use self::manifest::ROLES;
use crate::defaults;

/// Verbs on some resources of one API group.
#[derive(Clone, Debug)]
pub(crate) struct RbacRight {
    /// Its purpose, which the roles have as a comment.
    pub(crate) why: &'static str,
    /// The feature that needs it; `None`: every installation.
    pub(crate) feature: Option<Feature>,
    /// In taskgate's own namespace; else in the whole cluster.
    pub(crate) in_own_namespace: bool,
    pub(crate) rule: RbacRule,
}

/// A rule of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RbacRule {
    /// The API group; empty for the core one.
    pub(crate) api_groups: [String; 1],
    /// The resources, subresources included.
    pub(crate) resources: Vec<String>,
    /// The objects that it is limited to, to be filled in by [`Names::fill`]; empty: all.
    #[serde(default)]
    pub(crate) resource_names: Vec<String>,
    pub(crate) verbs: Vec<String>,
}

impl RbacRule {
    /// The API group; empty for the core one.
    pub(crate) fn group(&self) -> &str {
        let [group] = &self.api_groups;
        group
    }

    /// The objects of an installation with these `names` that it is limited to; empty: all.
    pub(crate) fn objects(&self, names: &Names) -> Vec<String> {
        self.resource_names.iter().map(|name| names.fill(name)).collect()
    }
}

/// A feature that an installation can disable, or has to enable; its rights are granted only while it is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Queueing of Jobs through Kueue.
    Kueue,
    /// Retry of Foreman's Workloads.
    Foreman,
    /// Retry of Tasks.
    TaskRetry,
    /// The fields of the proposals on Kelos' kinds. Off by default.
    KelosFields,
}

impl Feature {
    pub(crate) const ALL: [Self; 4] = [Self::Kueue, Self::Foreman, Self::TaskRetry, Self::KelosFields];

    /// Its name in the values of the chart.
    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Kueue => "kueue",
            Self::Foreman => "foreman",
            Self::TaskRetry => "taskRetry",
            Self::KelosFields => "kelosFields",
        }
    }

    /// Its suffix in the name of its ClusterRole, and behind `--no-` in the flag of `serve` if it is on by default.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Kueue => "kueue",
            Self::Foreman => "foreman",
            Self::TaskRetry => "task-retry",
            Self::KelosFields => "kelos-fields",
        }
    }
}

/// The names of an installation's objects, and the features that it disables.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The features that are disabled.
    pub(crate) without: Vec<Feature>,
    /// taskgate's namespace.
    pub(crate) namespace: String,
    /// Both webhook configurations.
    pub(crate) configuration: String,
    /// The Secret with the certificate that taskgate issues.
    pub(crate) certificate: String,
    /// The Secret with the certificate that cert-manager issues.
    pub(crate) issued: String,
    /// The Lease of the leader.
    pub(crate) lease: String,
    /// The ConfigMap with Kueue's configuration.
    pub(crate) kueue_config: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            without: vec![Feature::KelosFields],
            namespace: defaults::NAMESPACE.to_owned(),
            configuration: taskgate_webhook::rules::CONFIGURATION.to_owned(),
            certificate: defaults::CERTIFICATE.to_owned(),
            issued: defaults::ISSUED.to_owned(),
            lease: defaults::LEASE.to_owned(),
            kueue_config: kueue::ConfigRef::default().name,
        }
    }
}

impl Names {
    /// `text` with the names of this installation, such as that of its Lease for `$(LEASE)`.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("$(NAMESPACE)", &self.namespace)
            .replace("$(CONFIGURATION)", &self.configuration)
            .replace("$(CERTIFICATE)", &self.certificate)
            .replace("$(ISSUED)", &self.issued)
            .replace("$(LEASE)", &self.lease)
            .replace("$(KUEUE_CONFIG)", &self.kueue_config)
    }
}

/// The rights of [`ROLES`], in their order. None reads a Secret in the whole cluster.
pub(crate) static RIGHTS: LazyLock<Vec<RbacRight>> = LazyLock::new(|| {
    let (mut feature, mut in_own_namespace, mut why) = (None, false, "");
    let mut rights = Vec::new();
    for line in ROLES.lines() {
        if let Some(suffix) = line.strip_prefix("#if ") {
            feature = Feature::ALL.into_iter().find(|feature| feature.suffix() == suffix);
        } else if line == "#end" {
            feature = None;
        } else if let Some(kind) = line.strip_prefix("kind: ") {
            in_own_namespace = kind == "Role";
        } else if let Some(comment) = line.strip_prefix("# ") {
            why = comment;
        } else if let Some(rule) = line.strip_prefix("- ").filter(|rule| rule.starts_with('{')) {
            rights.push(RbacRight {
                why,
                feature,
                in_own_namespace,
                rule: serde_saphyr::from_str(rule).expect("each rule of roles.yaml is on one line"),
            });
        }
    }
    rights
});

/// The rights that an installation needs.
pub(crate) fn needed(names: &Names) -> impl Iterator<Item = &'static RbacRight> {
    let is_enabled = |right: &&RbacRight| right.feature.is_none_or(|feature| !names.without.contains(&feature));
    RIGHTS.iter().filter(is_enabled)
}
