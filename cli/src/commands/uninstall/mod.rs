//! `taskgate uninstall`: removes taskgate and its finalizers. Each step is idempotent: running it again finishes an interrupted
//! run.

mod lease;
mod objects;
mod tasks;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use kube::api::DeleteParams;
use taskgate_webhook::{ConfigurationName, rules::CONFIGURATION};
use tokio::time::sleep;

use self::lease::FencingLease;
use crate::{
    cluster::{Connection, ConnectionArgs, DryRun, MUTATING_CONFIGURATION, VALIDATING_CONFIGURATION, deleted},
    defaults,
    exit::CommandError,
    output,
};

/// How long Tasks are read again after the first pass, until no other client changes them.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Flags of `taskgate uninstall`.
#[derive(Args, Debug)]
#[command(
    mut_arg("namespace", |arg| arg.help(format!("The namespace of taskgate. Absent: {:?}, whatever the context", defaults::NAMESPACE))),
    after_help = "Examples:
  taskgate uninstall --dry-run                     what would be removed
  taskgate uninstall                               policies and WorkItems are kept
  taskgate uninstall --let-go                      before helm uninstall"
)]
pub(crate) struct UninstallArgs {
    /// Only remove the webhook configurations and the finalizers of Tasks; the rest is removed by the installer, such as Helm.
    #[arg(long)]
    pub(crate) let_go: bool,
    /// Also remove taskgate's CRDs, and with them every policy and WorkItem.
    #[arg(long, conflicts_with = "let_go")]
    pub(crate) with_data: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// The name of the webhook configurations. Without `--let-go` those with taskgate's label are found whatever their name.
    #[arg(long, value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
    /// The Lease of the replicas.
    #[arg(long, value_name = "NAME", default_value = defaults::LEASE)]
    pub(crate) lease: String,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// RBAC: with `--let-go`: `delete` on both webhook configurations, `get, update` on the Lease, `get, list, patch, delete` on
/// tasks of kelos.dev. Else those of an administrator.
pub(crate) async fn run(args: UninstallArgs) -> Result<(), CommandError> {
    let mut target = args.connection.clone();
    target.namespace.get_or_insert_with(|| defaults::NAMESPACE.to_owned());
    let connection = target.connect().await?;
    let dry_run = args.dry_run;
    let removal = objects::Removal {
        connection: &connection,
        dry_run,
    };
    if !args.let_go {
        removal.configurations().await?;
    }
    // From here on the API server does not call taskgate.
    for resource in [MUTATING_CONFIGURATION, VALIDATING_CONFIGURATION] {
        let (.., kind, _) = resource;
        let params = dry_run.delete(DeleteParams::default());
        let result = connection
            .api(resource, None)
            .delete(args.configuration.as_str(), &params)
            .await;
        deleted(result).with_context(|| format!("removing the {kind}"))?;
    }
    let mut lease = if dry_run.dry_run {
        FencingLease::none()
    } else {
        FencingLease::take(&connection, &args.lease).await?
    };
    if !args.let_go {
        removal.deployment().await?;
    }
    let summary = remove_finalizers(&connection, &mut lease, dry_run).await?;
    if !args.let_go {
        removal.rest(args.with_data).await?;
    }
    output::print(&summary)?;
    Ok(())
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
        let is_unsettled = pass.again > 0 && !dry_run.dry_run;
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
