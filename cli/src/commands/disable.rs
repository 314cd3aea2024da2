//! `taskgate disable` and `taskgate enable`: the webhooks are turned off in an incident, and on again. Neither needs a running
//! taskgate.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::Value;
use taskgate_api::switch::{CONFIG_MAP, Disabled, MANAGER};
use taskgate_controller::switch::{configurations, turn};
use taskgate_policy::{MAX_REASON, clip};

use crate::{
    cluster::{Connection, api_error, deleted},
    exit::{ExitStatus, all_done},
    flags::{ClusterArgs, DryRun, InstallationArgs, period},
    output,
};

/// Flags of `taskgate disable`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate disable --for 30m --reason incident-7
  taskgate disable --reason upgrade --dry-run")]
pub(crate) struct DisableArgs {
    /// The reason, kept in the ConfigMap and shown by `taskgate status`, with your name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// For how long, such as 30m. Then taskgate enables itself, also after a restart. Absent: until `taskgate enable`.
    #[arg(long = "for", value_name = "DURATION", value_parser = period)]
    pub(crate) period: Option<Duration>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) installation: InstallationArgs,
}

/// Flags of `taskgate enable`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  taskgate enable")]
pub(crate) struct EnableArgs {
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) installation: InstallationArgs,
}

/// RBAC: `patch` and `create` on the ConfigMap in taskgate's namespace; `get` and `patch` on both webhook configurations.
pub(crate) async fn disable(args: DisableArgs) -> Result<ExitStatus> {
    let connection = args.installation.connect(&args.cluster).await?;
    let now = Timestamp::now();
    let until = args.period.map(|period| now.checked_add(period)).transpose();
    let disabled = Disabled {
        reason: Some(clip(&args.reason, MAX_REASON)),
        // An unknown user is no obstacle.
        by: connection.user().await.ok(),
        since: Some(now),
        until: until.context("--for")?,
    };
    // Both steps are done, whichever fails.
    let written = write(&connection, &disabled, args.dry_run).await;
    turn_all(&connection, &args.installation, true, args.dry_run).await?;
    written.context("the webhooks are off, but the controller goes on, and turns them on again if it runs")?;
    let until = disabled.until.map_or("`taskgate enable`".to_owned(), output::time);
    report(&format!("disabled until {until}"), args.dry_run)
}

/// RBAC: `delete` on the ConfigMap in taskgate's namespace; `get` and `patch` on both webhook configurations.
pub(crate) async fn enable(args: EnableArgs) -> Result<ExitStatus> {
    let connection = args.installation.connect(&args.cluster).await?;
    let maps = Api::<ConfigMap>::namespaced(connection.client.clone(), &connection.namespace);
    let params = args.dry_run.delete(DeleteParams::default());
    if !args.dry_run.is_client() {
        deleted(maps.delete(CONFIG_MAP, &params).await).with_context(|| format!("deleting ConfigMap {CONFIG_MAP}"))?;
    }
    turn_all(&connection, &args.installation, false, args.dry_run).await?;
    report("enabled", args.dry_run)
}

fn report(state: &str, dry_run: DryRun) -> Result<ExitStatus> {
    let is = if dry_run.is_on() { "would be" } else { "is" };
    output::print(&format!("taskgate {is} {state}{}\n", dry_run.suffix()))?;
    Ok(ExitStatus::Success)
}

async fn write(connection: &Connection, disabled: &Disabled, dry_run: DryRun) -> Result<()> {
    if dry_run.is_client() {
        return Ok(());
    }
    let maps = Api::<ConfigMap>::namespaced(connection.client.clone(), &connection.namespace);
    let map = Patch::Apply(disabled.config_map(&connection.namespace));
    let params = dry_run.patch(PatchParams::apply(MANAGER).force());
    let written = maps.patch(CONFIG_MAP, &params, &map).await.map_err(api_error);
    written
        .map(drop)
        .with_context(|| format!("writing ConfigMap {CONFIG_MAP}"))
}

/// Turns the webhooks of both configurations off or on; of the second one also when the first one fails.
async fn turn_all(
    connection: &Connection,
    installation: &InstallationArgs,
    off: bool,
    dry_run: DryRun,
) -> Result<ExitStatus> {
    let name = installation.configuration.as_str();
    let mut failed = 0;
    for (kind, api) in configurations(&connection.client) {
        let turned = match api.get_opt(name).await {
            Ok(None) => Ok("there is none"),
            Ok(Some(found)) => {
                let turned = if dry_run.is_client() {
                    Ok(())
                } else {
                    turn(&kind, &api, &found, off, dry_run.is_on()).await.map(drop)
                };
                turned.map(|()| if off { "off" } else { "on" })
            }
            Err(error) => Err(error),
        };
        match turned {
            Ok(state) => output::print(&format!("{} {name}: {state}\n", kind.kind))?,
            Err(error) => {
                output::print_error(&format!("{} {name}: {:#}", kind.kind, api_error(error)));
                failed += 1;
            }
        }
    }
    all_done(failed, "turned")
}

/// What the `ConfigMap` contains: since when taskgate is disabled, by whom, until when, and why.
pub(crate) fn describe(map: &Value) -> (Disabled, String) {
    let data: BTreeMap<String, String> = serde_json::from_value(map["data"].clone()).unwrap_or_default();
    let (disabled, problem) = Disabled::read(&data);
    let mut text = "disabled".to_owned();
    for (word, value) in [
        (" since ", disabled.since.map(output::time)),
        (" by ", disabled.by.clone()),
        (" until ", disabled.until.map(output::time)),
        (": ", disabled.reason.clone()),
        ("; ", problem),
    ] {
        text.extend(value.into_iter().flat_map(|value| [word.to_owned(), value]));
    }
    (disabled, text)
}
