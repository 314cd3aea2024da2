//! `taskgate status`: the state of the installation, the policies, the Tasks that they govern, the items that are stopped with their
//! costs, and the retries of failed runs.
//!
//! ```text
//! API server ── read (once) or follow (--watch) ──→ Snapshot ── report (pure) ──→ StatusReport ── text, JSON, YAML
//! ```

mod follow;
mod installation;
mod report;
mod text;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

use self::{installation::InstalledArgs, report::StatusReport};
use super::snapshot::{Collection, Snapshot, SnapshotReader};
use crate::{
    cluster::ConnectionArgs,
    exit::{CommandError, ExitStatus},
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

/// RBAC: `list`, and with `--watch` also `watch`, on tasks and taskspawners of kelos.dev, and on workitems, taskpolicies and
/// clustertaskpolicies; `get` on the namespace, or with `-A` `list` on namespaces; and the rights of [`installation::read`].
/// What may not be read is shown in its place.
pub(crate) async fn run(args: StatusArgs) -> Result<ExitStatus, CommandError> {
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
    match installation::read(&connection, &args.installed).await {
        Ok(installation) => {
            try_print(&format!("{installation}\n{report}"))?;
            Ok(status(&snapshot))
        }
        Err(error) => {
            try_print(&format!("taskgate: cannot be read: {error:#}\n\n{report}"))?;
            Ok(match status(&snapshot) {
                ExitStatus::Success => ExitStatus::Warnings,
                other => other,
            })
        }
    }
}

fn status(snapshot: &Snapshot) -> ExitStatus {
    match snapshot.errors() {
        0 => ExitStatus::Success,
        all if all == snapshot.len() => ExitStatus::Failure,
        _ => ExitStatus::Warnings,
    }
}

async fn watch(args: &StatusArgs) -> Result<ExitStatus, CommandError> {
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
