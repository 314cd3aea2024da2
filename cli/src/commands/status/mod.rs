//! `taskgate status`: the state of the installation, the policies, the Tasks that they govern, the items that are stopped with their
//! costs, and the retries of failed runs.
//!
//! ```text
//! API server ── read (once) or follow (--watch) ──→ Snapshot ── report (pure) ──→ StatusReport ── text, JSON, YAML
//! ```

mod follow;
mod report;
mod text;

#[cfg(test)]
mod tests;

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
};

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use serde_json::Value;
use taskgate_api::switch::{CONFIG_MAP, webhooks};
use taskgate_controller::switch::configurations;
use taskgate_webhook::{ConfigurationName, rules::CONFIGURATION};

use self::report::StatusReport;
use super::{
    disable::describe,
    kelos_fields,
    snapshot::{Collection, Snapshot, SnapshotReader},
};
use crate::{
    cluster::{Connection, ConnectionArgs, resource_of},
    defaults::{NAME, NAMESPACE},
    exit::ExitStatus,
    flags::object_name,
    output::{OutputFormat, try_print},
};

/// Moves a terminal's cursor to its beginning and clears the screen.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Flags of `taskgate status`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  taskgate status -n team-a          the policies, Tasks and items of one namespace
  taskgate status -A --watch         of all namespaces, printed again after each change
  taskgate status -A -o json | jq '.openItems.entries[] | {key, totalCostUSD}'

Exit code 0: everything was read; 3: something could not be read, which is shown in its place; 1: nothing could be read.")]
pub(crate) struct StatusArgs {
    /// All namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// The form of the result.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    pub(crate) output: OutputFormat,
    /// Continue, and print it again after each change, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) installed: InstalledArgs,
}

/// The flags that name the installation.
#[derive(Args, Debug)]
pub(crate) struct InstalledArgs {
    /// The namespace that taskgate runs in.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE, value_parser = object_name)]
    pub(crate) taskgate_namespace: String,
    /// The name of its webhook configurations.
    #[arg(long, value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
    /// The Service, which the Lease is named after.
    #[arg(long, value_name = "NAME", default_value = NAME)]
    pub(crate) service: String,
}

/// RBAC: `list`, and with `--watch` also `watch`, on tasks and taskspawners of kelos.dev, and on workitems, taskpolicies and
/// clustertaskpolicies; `get` on the namespace, or with `-A` `list` on namespaces; and the rights of [`installation`].
/// What may not be read is shown in its place.
pub(crate) async fn run(args: StatusArgs) -> Result<ExitStatus> {
    if args.watch {
        return watch(&args).await;
    }
    let connection = args.connection.connect().await?;
    let reader = SnapshotReader::discover(connection.clone(), args.all_namespaces).await?;
    let queries = Collection::STATUS.map(|collection| reader.query(collection));
    let snapshot = reader.read(queries).await.if_reachable()?;
    let report = render(&StatusReport::of(reader.namespace(), &snapshot), args.output)?;
    if args.output != OutputFormat::Text {
        try_print(&report)?;
        return Ok(status(&snapshot));
    }
    let installation = installation(&connection, &args.installed).await;
    let status = match (&installation, status(&snapshot)) {
        (Err(_), ExitStatus::Success) => ExitStatus::Warnings,
        (_, status) => status,
    };
    let installation = installation.unwrap_or_else(|error| format!("taskgate: cannot be read: {error:#}\n"));
    try_print(&format!("{installation}\n{report}"))?;
    Ok(status)
}

fn status(snapshot: &Snapshot) -> ExitStatus {
    match snapshot.errors() {
        0 => ExitStatus::Success,
        all if all == snapshot.len() => ExitStatus::Failure,
        _ => ExitStatus::Warnings,
    }
}

async fn watch(args: &StatusArgs) -> Result<ExitStatus> {
    let connection = args.connection.connect_to_watch().await?;
    let reader = SnapshotReader::discover(connection, args.all_namespaces).await?;
    let clears = args.output == OutputFormat::Text && io::stdout().is_terminal();
    let mut printed = None;
    let mut last = ExitStatus::Success;
    follow::follow(&reader, |snapshot| {
        last = status(snapshot);
        let report = StatusReport::of(reader.namespace(), snapshot);
        if printed.as_ref() == Some(&report) {
            return Ok(true);
        }
        let text = render(&report, args.output)?;
        let begin = match (clears, args.output) {
            (true, _) => CLEAR,
            (false, OutputFormat::Yaml) => "---\n",
            (false, OutputFormat::Text) if printed.is_some() => "\n",
            (false, _) => "",
        };
        printed = Some(report);
        try_print(&format!("{begin}{text}"))
    })
    .await?;
    Ok(last)
}

fn render(report: &StatusReport, format: OutputFormat) -> Result<String> {
    format.render(report, || text::text(report, Timestamp::now()))
}

/// The state of the installation, a line each: the switch, both webhook configurations, the leader, and Kelos' CRDs if they are
/// extended.
///
/// RBAC: `get` on the ConfigMaps and the Lease in taskgate's namespace, on both webhook configurations and on both of Kelos' CRDs.
async fn installation(connection: &Connection, args: &InstalledArgs) -> Result<String> {
    let own = Some(args.taskgate_namespace.as_str());
    let map = connection.get(&resource_of::<ConfigMap>(), own, CONFIG_MAP).await?;
    let switch = map.map_or_else(|| "enabled".to_owned(), |map| describe(&map).1);
    let mut text = format!("taskgate: {switch}\n");
    for (resource, _) in configurations(&connection.client) {
        let name = args.configuration.as_str();
        let found = connection.get(&resource, None, name).await?;
        let state = found.map_or_else(|| "there is none".to_owned(), |found| webhook_state(&found));
        let _ = writeln!(text, "{} {name}: {state}", resource.kind);
    }
    let lease = format!("{}-controller", args.service);
    let lease = connection
        .get(&resource_of::<Lease>(), own, &lease)
        .await?
        .unwrap_or_default();
    let spec = |field: &str| lease["spec"][field].as_str().filter(|value| !value.is_empty());
    let renewed = spec("renewTime").and_then(|time| time.parse::<Timestamp>().ok());
    let leader = spec("holderIdentity").zip(renewed).map(|(holder, renewed)| {
        let seconds = Timestamp::now().duration_since(renewed).as_secs();
        format!("{holder}, renewed {seconds} s ago")
    });
    let _ = writeln!(text, "Leader: {}", leader.as_deref().unwrap_or("none"));
    if let Some(fields) = kelos_fields::summary(connection, &args.taskgate_namespace).await? {
        let _ = writeln!(text, "Fields on Kelos' kinds: {fields}");
    }
    Ok(text)
}

/// Whether a configuration's webhooks are on, and how many fail closed.
fn webhook_state(configuration: &Value) -> String {
    let all = webhooks(configuration).count();
    let fail = configuration["webhooks"].as_array().into_iter().flatten();
    let fail = fail.filter(|webhook| webhook["failurePolicy"] == "Fail").count();
    let switched = match webhooks(configuration).filter(|(_, off)| *off).count() {
        0 => "on".to_owned(),
        off if off == all => "off".to_owned(),
        off => format!("{off} of {all} off"),
    };
    format!("{switched}; of {all} webhooks {fail} fail closed")
}
