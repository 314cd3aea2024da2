//! `taskgate status`: whether taskgate is at work, what is governed, where each Task stands as taskgate sees it, which items are
//! stopped, at what cost, and which failed runs are repeated.
//!
//! ```text
//! API server ── read (once) or follow (--watch) ──→ Snapshot ── report (pure) ──→ Report ── text, JSON, YAML
//! ```

mod follow;
mod installation;
mod report;
mod retries;
mod text;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

use self::{installation::InstalledArgs, report::Report};
use super::{
    ConnectionArgs, Failure, Outcome,
    snapshot::{Reach, STATUS, Snapshot, read},
};
use crate::output::{Format, to_json, to_yaml, try_print};

/// Moves a terminal's cursor to its beginning and clears what was there.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Flags of `taskgate status`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  taskgate status -n team-a          what is governed in one namespace
  taskgate status -A --watch         in all of them, drawn anew whenever something changes
  taskgate status -A -o json | jq '.openItems.entries[] | {key, totalCostUSD}'

Exit code 0: all of it was read; 3: something could not be read, which is said in its place; 1: nothing could be read.")]
pub(crate) struct StatusArgs {
    /// All namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// The form of the answer.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    pub(crate) output: Format,
    /// Go on, and print it anew whenever something changes. Ctrl-C ends it.
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) installed: InstalledArgs,
}

/// RBAC: `list`, and with `--watch` also `watch`, on tasks and taskspawners of kelos.dev, and on workitems, taskpolicies and
/// clustertaskpolicies; `get` on the namespace, or with `-A` `list` on namespaces; and what [`installation::read`] needs. Whatever is missing is told.
pub(crate) async fn run(args: StatusArgs) -> Result<Outcome, Failure> {
    if args.watch {
        return watch(&args).await;
    }
    let connection = args.connection.connect().await?;
    let client = connection.client.clone();
    let reach = Reach::of(connection, args.all_namespaces).await?;
    let snapshot = read(&reach, &STATUS).await?;
    let report = render(&Report::of(reach.namespace(), &snapshot), args.output)?;
    if args.output != Format::Text {
        try_print(&report)?;
        return Ok(outcome(&snapshot));
    }
    match installation::read(&client, &args.installed).await {
        Ok(installation) => {
            try_print(&format!("{installation}\n{report}"))?;
            Ok(outcome(&snapshot))
        }
        Err(error) => {
            try_print(&format!("taskgate: cannot be read: {error:#}\n\n{report}"))?;
            Ok(match outcome(&snapshot) {
                Outcome::Fine => Outcome::Warned,
                other => other,
            })
        }
    }
}

fn outcome(snapshot: &Snapshot) -> Outcome {
    match snapshot.troubles() {
        0 => Outcome::Fine,
        all if all == snapshot.len() => Outcome::Denied,
        _ => Outcome::Warned,
    }
}

async fn watch(args: &StatusArgs) -> Result<Outcome, Failure> {
    let connection = args.connection.connect_to_watch().await?;
    let reach = Reach::of(connection, args.all_namespaces).await?;
    let clears = args.output == Format::Text && io::stdout().is_terminal();
    let mut shown = None;
    let mut last = Outcome::Fine;
    follow::follow(&reach, |snapshot| {
        last = outcome(snapshot);
        let report = Report::of(reach.namespace(), snapshot);
        if shown.as_ref() == Some(&report) {
            return Ok(true);
        }
        let text = render(&report, args.output)?;
        let begin = match (clears, args.output) {
            (true, _) => CLEAR,
            (false, Format::Yaml) => "---\n",
            (false, Format::Text) if shown.is_some() => "\n",
            (false, _) => "",
        };
        shown = Some(report);
        try_print(&format!("{begin}{text}"))
    })
    .await?;
    Ok(last)
}

fn render(report: &Report, format: Format) -> Result<String> {
    match format {
        Format::Text => Ok(text::text(report, Timestamp::now())),
        Format::Json => to_json(report),
        Format::Yaml => to_yaml(report),
    }
}
