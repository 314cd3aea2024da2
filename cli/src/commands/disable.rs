//! `taskgate disable` and `taskgate enable`: taskgate is taken out of the way in an incident, and put back as it was. Neither
//! needs a taskgate that runs.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use taskgate_api::switch::{CONFIG_MAP, Disabled, MANAGER};
use taskgate_controller::switch::{configurations, turn};
use taskgate_policy::clip;

use super::{Connection, Failure, installation::InstallationArgs, said};
use crate::output;

/// The longest explanation that is kept, in characters.
const MAX_REASON: usize = 256;
/// The longest time: what is to stay off for longer is better uninstalled.
const LONGEST: Duration = Duration::from_hours(30 * 24);

/// Flags of `taskgate disable`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate disable --for 30m --reason incident-7
  taskgate disable --reason upgrade --dry-run")]
pub(crate) struct DisableArgs {
    /// Why: kept in the ConfigMap and told by `taskgate status`, with your name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// For how long, such as 30m. Then taskgate enables itself, also if it was restarted meanwhile. Absent: until `taskgate enable`.
    #[arg(long = "for", value_name = "DURATION", value_parser = period)]
    pub(crate) period: Option<Duration>,
    /// Ask the API server, but change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) installation: InstallationArgs,
}

/// Flags of `taskgate enable`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  taskgate enable")]
pub(crate) struct EnableArgs {
    /// Ask the API server, but change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) installation: InstallationArgs,
}

/// RBAC: `patch` and `create` on the ConfigMap in taskgate's namespace; `get` and `patch` on both webhook configurations.
pub(crate) async fn disable(args: DisableArgs) -> Result<(), Failure> {
    let connection = args.installation.connect().await?;
    let now = Timestamp::now();
    let until = args.period.map(|period| now.checked_add(period)).transpose();
    let disabled = Disabled {
        reason: Some(clip(&args.reason, MAX_REASON)),
        // Who cannot be told must not keep anybody from it.
        by: connection.user().await.ok(),
        since: Some(now),
        until: until.context("--for")?,
    };
    // Whatever fails: the rest is done all the same.
    let noted = note(&connection, &disabled, args.dry_run).await;
    let turned = turn_all(
        &connection,
        args.installation.configuration.as_str(),
        true,
        args.dry_run,
    )
    .await;
    turned?;
    noted.context("the webhooks are off, but the controller goes on, and turns them on again if it runs")?;
    let until = match disabled.until {
        Some(until) => format!("until {}", until.strftime("%FT%TZ")),
        None => "until `taskgate enable`".to_owned(),
    };
    Ok(output::print(&if args.dry_run {
        format!("taskgate would be disabled {until} (dry run)\n")
    } else {
        format!("taskgate is disabled {until}\n")
    })?)
}

/// RBAC: `delete` on the ConfigMap in taskgate's namespace; `get` and `patch` on both webhook configurations.
pub(crate) async fn enable(args: EnableArgs) -> Result<(), Failure> {
    let connection = args.installation.connect().await?;
    let maps = Api::<ConfigMap>::namespaced(connection.client.clone(), &connection.namespace);
    let params = DeleteParams {
        dry_run: args.dry_run,
        ..DeleteParams::default()
    };
    match maps.delete(CONFIG_MAP, &params).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(said(error).context(format!("deleting ConfigMap {CONFIG_MAP}")).into()),
    }
    turn_all(
        &connection,
        args.installation.configuration.as_str(),
        false,
        args.dry_run,
    )
    .await?;
    Ok(output::print(if args.dry_run {
        "taskgate would be enabled (dry run)\n"
    } else {
        "taskgate is enabled\n"
    })?)
}

async fn note(connection: &Connection, disabled: &Disabled, dry_run: bool) -> Result<()> {
    let maps = Api::<ConfigMap>::namespaced(connection.client.clone(), &connection.namespace);
    let map = disabled.config_map(&connection.namespace);
    let params = PatchParams {
        dry_run,
        ..PatchParams::apply(MANAGER).force()
    };
    let applied = maps.patch(CONFIG_MAP, &params, &Patch::Apply(map)).await;
    applied
        .map(drop)
        .map_err(|error| said(error).context(format!("writing ConfigMap {CONFIG_MAP}")))
}

/// Turns both configurations; the second one also when the first one cannot be turned.
async fn turn_all(connection: &Connection, name: &str, off: bool, dry_run: bool) -> Result<()> {
    let mut failed = 0;
    for (kind, api) in configurations(&connection.client) {
        let turned = match api.get_opt(name).await {
            Ok(None) => Ok("there is none"),
            Ok(Some(found)) => turn(&kind, &api, &found, off, dry_run)
                .await
                .map(|_| if off { "off" } else { "on" }),
            Err(error) => Err(error),
        };
        match turned {
            Ok(standing) => output::print(&format!("{} {name}: {standing}\n", kind.kind))?,
            Err(error) => {
                output::complain(&format!("{} {name}: {:#}", kind.kind, said(error)));
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(anyhow!("{failed} not turned")),
    }
}

/// That it is disabled, and what is known of it: since when, by whom, until when, why.
pub(crate) fn told(disabled: &Disabled) -> String {
    let time = |time: Timestamp| time.strftime("%FT%TZ").to_string();
    let mut text = "disabled".to_owned();
    for (word, value) in [
        (" since ", disabled.since.map(time)),
        (" by ", disabled.by.clone()),
        (" until ", disabled.until.map(time)),
        (": ", disabled.reason.clone()),
    ] {
        if let Some(value) = value {
            text.push_str(word);
            text.push_str(&value);
        }
    }
    text
}

/// A duration between a second and thirty days.
fn period(text: &str) -> Result<Duration, String> {
    let parsed: taskgate_api::Duration = text.parse().map_err(|error| format!("{error}"))?;
    let period = Duration::from(parsed);
    if (Duration::from_secs(1)..=LONGEST).contains(&period) {
        Ok(period)
    } else {
        Err("between 1s and 720h".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_from_a_second_to_thirty_days() {
        for (text, good) in [
            ("30m", true),
            ("1s", true),
            ("720h", true),
            ("0s", false),
            ("721h", false),
            ("-1h", false),
            ("soon", false),
        ] {
            assert_eq!(period(text).is_ok(), good, "{text}");
        }
    }
}
