//! `taskgate uninstall`: nothing of taskgate is left that anybody waits for. Each step is done again by the next run, so one
//! that was interrupted is finished by running it again.

mod fence;
mod objects;
mod tasks;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::{
    Api,
    api::{DeleteParams, PatchParams},
};
use taskgate_webhook::{ConfigurationName, rules::CONFIGURATION};
use tokio::time::sleep;

use self::fence::Fence;
use super::{Connection, ConnectionArgs, Failure, said};
use crate::{args, output};

/// How long Tasks are looked at again and again after the first look, until none is left that somebody else changes meanwhile.
const PATIENCE: Duration = Duration::from_mins(2);

/// Flags of `taskgate uninstall`.
#[derive(Args, Debug)]
#[command(
    mut_arg("namespace", |arg| arg.help(format!("Where taskgate is. Absent: {:?}, whatever the context says", args::NAMESPACE))),
    after_help = "Examples:
  taskgate uninstall --dry-run                     what would be removed
  taskgate uninstall                               policies and WorkItems are kept
  taskgate uninstall --let-go                      before helm uninstall"
)]
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
    /// The name of the webhook configurations. Without `--let-go` those with taskgate's label are found whatever their name is.
    #[arg(long, value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
    /// The Lease of the replicas.
    #[arg(long, value_name = "NAME", default_value = args::LEASE)]
    pub(crate) lease: String,
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
    let removal = objects::Removal {
        connection: &connection,
        mode,
    };
    if !args.let_go {
        removal.of_the_registered().await?;
    }
    unregister(&connection, args.configuration.as_str(), mode).await?;
    let mut fence = if args.dry_run {
        Fence::none()
    } else {
        Fence::take(&connection, &args.lease).await?
    };
    if !args.let_go {
        removal.of_the_running().await?;
    }
    let told = let_go(&connection, &mut fence, mode).await?;
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

/// Looks at all Tasks until nothing of ours hangs on any, at last when no replica can change them any more.
async fn let_go(connection: &Connection, fence: &mut Fence<'_>, mode: Mode) -> Result<String> {
    let Some(tasks) = tasks::Tasks::find(connection, mode).await? else {
        return Ok("Kelos is not installed: there are no Tasks\n".to_owned());
    };
    let mut sum = tasks::Sum::default();
    let mut deadline = None;
    loop {
        fence.renew().await?;
        let began = Instant::now();
        let pass = tasks.let_go(fence).await?;
        // Of what is not changed there is nothing more to see.
        let unsettled = pass.again > 0 && !mode.dry_run;
        sum.add(pass);
        if fence.closed() <= began && !unsettled {
            return Ok(sum.told(mode));
        }
        anyhow::ensure!(
            Instant::now() < *deadline.get_or_insert_with(|| Instant::now() + PATIENCE),
            "Tasks keep changing; run it again. So far: {}",
            sum.told(mode)
        );
        let left = fence.closed().saturating_duration_since(Instant::now());
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
