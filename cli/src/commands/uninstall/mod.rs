//! `taskgate uninstall`: removes taskgate and its finalizers. Each step is idempotent: running it again finishes an interrupted
//! run.

mod lease;
mod tasks;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        coordination::v1::Lease,
        core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    ResourceExt as _,
    api::{ApiResource, DeleteParams},
};
use taskgate_controller::switch::configurations;
use tokio::time::sleep;

use self::lease::FencingLease;
use crate::{
    cluster::{Connection, api_error, deleted, is_not_found, resource, resource_of, with_label},
    defaults,
    exit::ExitStatus,
    flags::{ClusterArgs, Confirmation, DryRun, InstallationArgs},
    output,
};

/// How long Tasks are read again after the first pass, until no other client changes them.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Flags of `taskgate uninstall`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate uninstall --dry-run=client              what would be removed
  taskgate uninstall                               policies and WorkItems are kept
  taskgate uninstall --let-go --yes                before helm uninstall")]
pub(crate) struct UninstallArgs {
    /// Only remove the webhook configurations named by --configuration and the finalizers of Tasks; the rest is removed by the
    /// installer, such as Helm.
    #[arg(long)]
    pub(crate) let_go: bool,
    /// Also remove taskgate's CRDs, and with them every policy and WorkItem.
    #[arg(long, conflicts_with = "let_go")]
    pub(crate) with_data: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    #[command(flatten)]
    pub(crate) confirmation: Confirmation,
    /// The Lease of the replicas.
    #[arg(long, value_name = "NAME", default_value = defaults::LEASE)]
    pub(crate) lease: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) installation: InstallationArgs,
}

/// RBAC: with `--let-go`: `delete` on both webhook configurations, `get, update` on the Lease, `get, list, patch, delete` on
/// tasks of kelos.dev. Else those of an administrator.
pub(crate) async fn run(args: UninstallArgs) -> Result<ExitStatus> {
    let connection = args.installation.connect(&args.cluster).await?;
    let dry_run = args.dry_run;
    if !dry_run.is_on() {
        let data = if args.with_data {
            ", with every policy and WorkItem"
        } else {
            ""
        };
        let what = format!("Remove taskgate from namespace {}{data}", connection.namespace);
        args.confirmation.ask(&what)?;
    }
    let removal = Removal {
        connection: &connection,
        dry_run,
    };
    // The webhook configurations, whatever their name: before the Service that they call.
    if !args.let_go {
        let all = configurations(&connection.client).map(|(resource, _)| resource);
        removal.remove(&all).await?;
    }
    // From here on the API server does not call taskgate.
    for (resource, configurations) in configurations(&connection.client) {
        if dry_run.is_client() {
            continue;
        }
        let params = dry_run.delete(DeleteParams::default());
        let result = configurations
            .delete(args.installation.configuration.as_str(), &params)
            .await;
        deleted(result).with_context(|| format!("removing the {}", resource.kind))?;
    }
    let mut lease = if dry_run.is_on() {
        FencingLease::none()
    } else {
        FencingLease::take(&connection, &args.lease).await?
    };
    // The Deployment, and the rights of its pods: no replica starts again.
    if !args.let_go {
        let deployment = [resource_of::<Deployment>(), resource_of::<ClusterRoleBinding>()];
        removal.remove(&deployment).await?;
    }
    let summary = remove_finalizers(&connection, &mut lease, dry_run).await?;
    if !args.let_go {
        removal.remove(&rest()).await?;
        if args.with_data {
            removal.remove(&[resource_of::<CustomResourceDefinition>()]).await?;
        }
        removal.remove(&[resource_of::<Namespace>()]).await?;
    }
    output::print(&summary)?;
    Ok(ExitStatus::Success)
}

/// What is removed last, but for the CRDs and the namespace: rights before the objects that they allow to write.
fn rest() -> [ApiResource; 15] {
    [
        resource_of::<RoleBinding>(),
        resource_of::<Role>(),
        resource_of::<ClusterRole>(),
        resource_of::<Service>(),
        resource_of::<PodDisruptionBudget>(),
        resource_of::<NetworkPolicy>(),
        resource("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
        resource("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
        resource("cert-manager.io", "v1", "Certificate", "certificates"),
        resource("cert-manager.io", "v1", "Issuer", "issuers"),
        resource_of::<Job>(),
        resource_of::<ConfigMap>(),
        resource_of::<ServiceAccount>(),
        resource_of::<Lease>(),
        resource_of::<Secret>(),
    ]
}

/// The removal of one installation.
struct Removal<'a> {
    connection: &'a Connection,
    dry_run: DryRun,
}

impl Removal<'_> {
    /// Removes the objects of these kinds with taskgate's label: in its namespace, without a namespace, and the Roles elsewhere that
    /// let it read a Secret.
    async fn remove(&self, resources: &[ApiResource]) -> Result<()> {
        let Self { connection, dry_run } = self;
        for resource in resources {
            let ApiResource {
                group, kind, plural, ..
            } = resource;
            let found = match connection.api(resource, None).list(&with_label()).await {
                // The kind is not installed.
                Err(error) if is_not_found(&error) => continue,
                found => found.map_err(api_error).with_context(|| format!("listing {plural}"))?,
            };
            for object in found {
                let name = object.name_any();
                let namespace = object.namespace();
                let is_elsewhere = namespace
                    .as_ref()
                    .is_some_and(|namespace| *namespace != connection.namespace);
                let another_namespace = kind == "Namespace" && name != connection.namespace;
                if (is_elsewhere && group != "rbac.authorization.k8s.io") || another_namespace {
                    continue;
                }
                if !dry_run.is_client() {
                    let api = connection.api(resource, namespace.as_deref());
                    let result = api.delete(&name, &dry_run.delete(DeleteParams::background())).await;
                    deleted(result).with_context(|| format!("removing {kind} {name}"))?;
                }
                output::print(&format!("removed {kind} {name}{}\n", dry_run.suffix()))?;
            }
        }
        Ok(())
    }
}

/// Passes over all Tasks until none has taskgate's finalizer; the last pass begins when no replica can write any more.
async fn remove_finalizers(connection: &Connection, lease: &mut FencingLease<'_>, dry_run: DryRun) -> Result<String> {
    let Some(tasks) = tasks::Tasks::find(connection, dry_run).await? else {
        return Ok("Kelos is not installed: there are no Tasks\n".to_owned());
    };
    let mut summary = tasks::UninstallSummary::default();
    let mut deadline = None;
    loop {
        lease.renew().await?;
        let began = Instant::now();
        let pass = tasks.remove_finalizers(lease).await?;
        // A dry run changes nothing: another pass would find the same.
        let is_unsettled = pass.again > 0 && !dry_run.is_on();
        summary.add(pass);
        if lease.effective() <= began && !is_unsettled {
            return Ok(summary.text(dry_run));
        }
        anyhow::ensure!(
            Instant::now() < *deadline.get_or_insert_with(|| Instant::now() + TIMEOUT),
            "Tasks keep changing; run it again. So far: {}",
            summary.text(dry_run)
        );
        let left = lease.effective().saturating_duration_since(Instant::now());
        sleep(if is_unsettled { Duration::from_millis(200) } else { left }).await;
    }
}
