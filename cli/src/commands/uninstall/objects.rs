//! What an installation is made of, found by its label.

use anyhow::{Context as _, Result};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams},
};
use taskgate_api::keys;

use super::{
    super::{
        Connection,
        kind::{CONFIG_MAP, CRD, DEPLOYMENT, Kind, LEASE, NAMESPACE, SERVICE, resource},
        said,
    },
    Mode, gone,
};
use crate::output;

const REGISTRATION: &str = "admissionregistration.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const CLUSTER_ROLE_BINDING: Kind = (RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings");

/// What sends requests to taskgate.
const REGISTERED: [Kind; 2] = [
    (
        REGISTRATION,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    ),
    (
        REGISTRATION,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    ),
];

/// In the order in which they go: who may write the others before what is written.
const REST: [Kind; 15] = [
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
    ("batch", "v1", "Job", "jobs"),
    CONFIG_MAP,
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    LEASE,
    ("", "v1", "Secret", "secrets"),
];

/// The removal of one installation.
pub(super) struct Removal<'a> {
    pub(super) connection: &'a Connection,
    pub(super) mode: Mode,
}

impl Removal<'_> {
    /// What sends requests to us, by whatever name: before the Service that they are sent to.
    pub(super) async fn of_the_registered(&self) -> Result<()> {
        for kind in REGISTERED {
            self.of(kind).await?;
        }
        Ok(())
    }

    /// What runs, and what lets it write: from now on no replica comes back.
    pub(super) async fn of_the_running(&self) -> Result<()> {
        self.of(DEPLOYMENT).await?;
        self.of(CLUSTER_ROLE_BINDING).await
    }

    /// Everything else. With `data` also our kinds, with all objects of them.
    pub(super) async fn of_the_rest(&self, data: bool) -> Result<()> {
        for kind in REST {
            self.of(kind).await?;
        }
        if data {
            self.of(CRD).await?;
        }
        self.of(NAMESPACE).await
    }

    /// Removes what carries our label: in our namespace, and beside it what has no namespace and the Roles that let us read a Secret.
    async fn of(&self, searched: Kind) -> Result<()> {
        let Self { connection, mode } = self;
        let (group, _, kind, plural) = searched;
        let resource = resource(searched);
        let everywhere = Api::<DynamicObject>::all_with(connection.client.clone(), &resource);
        let ours = ListParams::default().labels(&format!("{}={}", keys::PART_OF, keys::PART_OF_TASKGATE));
        let found = match everywhere.list(&ours).await {
            // Its kind is not installed.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            found => found.map_err(said).with_context(|| format!("looking for {plural}"))?,
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
            let api = match &namespace {
                Some(namespace) => Api::namespaced_with(connection.client.clone(), namespace, &resource),
                None => everywhere.clone(),
            };
            let deleted = api.delete(&name, &mode.delete(DeleteParams::background())).await;
            gone(deleted).with_context(|| format!("removing {kind} {name}"))?;
            output::print(&format!("removed {kind} {name}{}\n", mode.told()))?;
        }
        Ok(())
    }
}
