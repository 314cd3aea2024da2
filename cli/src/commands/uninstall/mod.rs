//! `taskgate uninstall`: nothing of taskgate is left that anybody waits for. Each step is done again by the next run, so one
//! that was interrupted is finished by running it again.

mod objects;
mod tasks;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        coordination::v1::Lease,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{DeleteParams, PatchParams, PostParams},
};
use taskgate_webhook::{ConfigurationName, rules::CONFIGURATION};
use tokio::time::sleep;

use super::{Connection, ConnectionArgs, Failure, said};
use crate::{args, output};

/// The holder that the Lease shows meanwhile: no replica takes it for its own.
const HOLDER: &str = "taskgate-uninstall";
/// For how long no replica leads. Should the uninstall not go on, one does afterwards.
const HELD: Duration = Duration::from_mins(2);
/// After how long no replica takes itself for the leader any more: it looks every 4 s, and ends what it has begun.
const NOTICED: Duration = Duration::from_secs(6);
/// How long Tasks are looked at again and again, until none is left that somebody else changes meanwhile.
const PATIENCE: Duration = Duration::from_mins(2);

/// Flags of `taskgate uninstall`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate uninstall --dry-run                     what would be removed
  taskgate uninstall                               policies and WorkItems are kept
  taskgate uninstall --let-go                      before helm uninstall")]
pub(crate) struct UninstallArgs {
    /// Only stop governing and let go of all Tasks; the rest is left to what installed it, such as Helm.
    #[arg(long)]
    pub(crate) let_go: bool,
    /// Also remove taskgate's kinds, and with them every policy and WorkItem.
    #[arg(long, conflicts_with = "let_go")]
    pub(crate) with_data: bool,
    /// Ask the API server for each step, but change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The name of the webhook configurations.
    #[arg(long, value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
    /// The Lease of the replicas.
    #[arg(long, value_name = "NAME", default_value = args::LEASE)]
    pub(crate) lease: String,
    /// Where taskgate is: its namespace is `taskgate-system` if not told.
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// RBAC: with `--let-go`: `delete` on both webhook configurations, `get, update` on the Lease, `get, list, patch, delete` on
/// tasks of kelos.dev. Else those of an administrator.
pub(crate) async fn run(args: UninstallArgs) -> Result<(), Failure> {
    let mut way = args.connection.clone();
    way.namespace.get_or_insert_with(|| args::NAMESPACE.to_owned());
    let connection = way.connect().await?;
    let mode = Mode { dry_run: args.dry_run };
    unregister(&connection, args.configuration.as_str(), mode).await?;
    let fenced = !args.dry_run && fence(&connection, &args.lease).await?;
    let removal = objects::Removal {
        connection: &connection,
        mode,
    };
    if !args.let_go {
        removal.of_the_running().await?;
    }
    let told = let_go(&connection, fenced, mode).await?;
    if !args.let_go {
        removal.of_the_rest(args.with_data).await?;
    }
    output::print(&told)?;
    Ok(())
}

/// Whether it is meant.
#[derive(Clone, Copy, Debug)]
struct Mode {
    dry_run: bool,
}

impl Mode {
    fn delete(self, params: DeleteParams) -> DeleteParams {
        let Self { dry_run } = self;
        DeleteParams { dry_run, ..params }
    }

    fn patch(self) -> PatchParams {
        let Self { dry_run } = self;
        PatchParams {
            dry_run,
            ..PatchParams::default()
        }
    }

    /// What a line ends with that tells what was done.
    fn told(self) -> &'static str {
        if self.dry_run { " (dry run)" } else { "" }
    }
}

/// From now on no request is sent to taskgate.
async fn unregister(connection: &Connection, name: &str, mode: Mode) -> Result<()> {
    let mutating = Api::<MutatingWebhookConfiguration>::all(connection.client.clone());
    let validating = Api::<ValidatingWebhookConfiguration>::all(connection.client.clone());
    let now = mode.delete(DeleteParams::default());
    gone(mutating.delete(name, &now).await).context("removing the MutatingWebhookConfiguration")?;
    gone(validating.delete(name, &now).await).context("removing the ValidatingWebhookConfiguration")
}

/// Takes the Lease away from the replica that leads; whether it had it until now.
async fn fence(connection: &Connection, name: &str) -> Result<bool> {
    let leases = Api::<Lease>::namespaced(connection.client.clone(), &connection.namespace);
    loop {
        let found = leases.get_opt(name).await.map_err(said).context("reading the Lease")?;
        let Some(mut lease) = found else {
            return Ok(false);
        };
        let spec = lease.spec.get_or_insert_default();
        let was_held = spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty());
        spec.holder_identity = Some(HOLDER.to_owned());
        spec.lease_duration_seconds = i32::try_from(HELD.as_secs()).ok();
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        match leases.replace(name, &PostParams::default(), &lease).await {
            Ok(_) => return Ok(was_held),
            // It was renewed meanwhile, or went.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(said(error).context("taking the Lease")),
        }
    }
}

/// Looks at all Tasks until nothing of ours hangs on any; once more when a leader that was there has noticed that it is none.
async fn let_go(connection: &Connection, fenced: bool, mode: Mode) -> Result<String> {
    let began = Instant::now();
    let Some(tasks) = tasks::Tasks::find(connection, mode).await? else {
        return Ok("Kelos is not installed: there are no Tasks\n".to_owned());
    };
    let mut sum = tasks::Sum::default();
    loop {
        let pass = tasks.let_go().await?;
        // Of what is not changed there is nothing more to see.
        let unsettled = pass.again > 0 && !mode.dry_run;
        sum.add(pass);
        let noticed = !fenced || began.elapsed() >= NOTICED;
        if noticed && !unsettled {
            return Ok(sum.told(mode));
        }
        anyhow::ensure!(
            began.elapsed() < PATIENCE,
            "Tasks keep changing; run it again. So far: {}",
            sum.told(mode)
        );
        let left = NOTICED.saturating_sub(began.elapsed());
        sleep(if unsettled { Duration::from_millis(200) } else { left }).await;
    }
}

/// What is not there needs no removal.
fn gone<T>(deleted: kube::Result<T>) -> Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(said(error)),
        Ok(_) => Ok(()),
    }
}
