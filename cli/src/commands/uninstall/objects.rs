//! The objects of an installation, found by their label.

use anyhow::{Context as _, Result};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use taskgate_api::keys;

use crate::{
    cluster::{
        CONFIG_MAP, CRD, Connection, DEPLOYMENT, DryRun, JOB, LEASE, MUTATING_CONFIGURATION, NAMESPACE, ResourceType,
        SERVICE, VALIDATING_CONFIGURATION, api_error, deleted, is_not_found,
    },
    output,
};

const RBAC: &str = "rbac.authorization.k8s.io";
const CLUSTER_ROLE_BINDING: ResourceType = (RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings");

/// In the order of their deletion: rights before the objects that they allow to write.
const REST: [ResourceType; 15] = [
    (RBAC, "v1", "RoleBinding", "rolebindings"),
    (RBAC, "v1", "Role", "roles"),
    (RBAC, "v1", "ClusterRole", "clusterroles"),
    SERVICE,
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    ("cert-manager.io", "v1", "Certificate", "certificates"),
    ("cert-manager.io", "v1", "Issuer", "issuers"),
    JOB,
    CONFIG_MAP,
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    LEASE,
    ("", "v1", "Secret", "secrets"),
];

/// The removal of one installation.
pub(super) struct Removal<'a> {
    pub(super) connection: &'a Connection,
    pub(super) dry_run: DryRun,
}

impl Removal<'_> {
    /// The webhook configurations, whatever their name: before the Service that they call.
    pub(super) async fn configurations(&self) -> Result<()> {
        self.remove(MUTATING_CONFIGURATION).await?;
        self.remove(VALIDATING_CONFIGURATION).await
    }

    /// The Deployment, and the rights of its pods: no replica starts again.
    pub(super) async fn deployment(&self) -> Result<()> {
        self.remove(DEPLOYMENT).await?;
        self.remove(CLUSTER_ROLE_BINDING).await
    }

    /// Everything else. With `data` also the CRDs, with all their objects.
    pub(super) async fn rest(&self, data: bool) -> Result<()> {
        for kind in REST {
            self.remove(kind).await?;
        }
        if data {
            self.remove(CRD).await?;
        }
        self.remove(NAMESPACE).await
    }

    /// Removes the objects with taskgate's label: in its namespace, without a namespace, and the Roles elsewhere that let it read a
    /// Secret.
    async fn remove(&self, resource: ResourceType) -> Result<()> {
        let Self { connection, dry_run } = self;
        let (group, _, kind, plural) = resource;
        let label = ListParams::default().labels(&format!("{}={}", keys::PART_OF, keys::PART_OF_TASKGATE));
        let found = match connection.api(resource, None).list(&label).await {
            // The kind is not installed.
            Err(error) if is_not_found(&error) => return Ok(()),
            found => found.map_err(api_error).with_context(|| format!("listing {plural}"))?,
        };
        for object in found {
            let name = object.name_any();
            let namespace = object.namespace();
            let is_elsewhere = namespace
                .as_ref()
                .is_some_and(|namespace| *namespace != connection.namespace);
            let another_namespace = kind == "Namespace" && name != connection.namespace;
            if (is_elsewhere && group != RBAC) || another_namespace {
                continue;
            }
            let api = connection.api(resource, namespace.as_deref());
            let result = api.delete(&name, &dry_run.delete(DeleteParams::background())).await;
            deleted(result).with_context(|| format!("removing {kind} {name}"))?;
            output::print(&format!("removed {kind} {name}{}\n", dry_run.suffix()))?;
        }
        Ok(())
    }
}
