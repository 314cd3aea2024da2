//! `taskgate doctor`: checks whether taskgate works in this cluster, and prints what to do where it does not.
//!
//! ```text
//! API server ── state (one concurrent pass) ──→ ClusterState ── checks (pure) ──→ DoctorReport ── text, JSON, YAML
//! ```

mod checks;
mod installation;
mod probe;
mod report;
mod state;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::{Instant, sleep};

use self::report::{DoctorReport, Level};
use crate::{
    defaults::NAME,
    exit::ExitStatus,
    flags::{ClusterArgs, InstallationArgs, WarningsArgs, duration, object_name},
    output::{OutputFormat, ProgressLine, Style, try_print},
};

/// The interval of the checks with `--wait`.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);

/// Flags of `taskgate doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  taskgate doctor                    what is wrong, and what to do about it
  taskgate doctor --wait 2m          after an installation: ends when taskgate enforces
  taskgate doctor -o json | jq '.findings[] | select(.level != \"ok\")'

Nothing is written: the objects that test admission are created as a dry run.
Exit code 0: no warnings; 3 (--warnings-exit-code): there are warnings; 1: something does not work.")]
pub(crate) struct DoctorArgs {
    /// Omit the checks that pass.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Repeat the checks until nothing keeps taskgate from enforcing, for this long at most. Without a value: 5m.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "5m", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// The form of the result.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    pub(crate) output: OutputFormat,
    /// The Service that the API server reaches taskgate through; the Deployment has the same name.
    #[arg(long, value_name = "NAME", default_value = NAME, value_parser = object_name)]
    pub(crate) service: String,
    #[command(flatten)]
    pub(crate) warnings: WarningsArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) installation: InstallationArgs,
}

/// RBAC: `get` and `list` on the objects that are checked, `create` on clustertaskpolicies and Tasks (as a dry run) and on
/// subjectaccessreviews. What may not be read is reported as a warning.
pub(crate) async fn run(args: DoctorArgs) -> Result<ExitStatus> {
    let connection = args.installation.connect(&args.cluster).await?;
    let until = args.wait.map(|period| Instant::now() + period);
    let waiting = ProgressLine::new("waiting for taskgate, checks that pass");
    let mut report = loop {
        let configuration = args.installation.configuration.as_str();
        let report = DoctorReport::of(match state::read(&connection, configuration, &args.service).await {
            Ok((mut state, reader)) => {
                state.probes = probe::run(&reader, checks::namespace_for_probe(&state)).await;
                checks::run(&state)
            }
            Err(no_api_server) => no_api_server,
        });
        if report.enforces() || until.is_none_or(|until| Instant::now() + WAIT_INTERVAL > until) {
            break report;
        }
        waiting.at(report.ok, report.findings.len());
        sleep(WAIT_INTERVAL).await;
    };
    drop(waiting);
    if args.quiet {
        report.findings.retain(|finding| finding.level != Level::Ok);
    }
    try_print(&args.output.render(&report, || report.text(Style::of_stdout()))?)?;
    Ok(match (report.failures, report.warnings) {
        (0, 0) => ExitStatus::Success,
        (0, _) => ExitStatus::Warnings,
        _ => ExitStatus::Failure,
    })
}
