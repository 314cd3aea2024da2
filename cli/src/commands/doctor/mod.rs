//! `taskgate doctor`: whether taskgate works in this cluster, and what to do where it does not.
//!
//! ```text
//! API server ── read (one pass, concurrent) ──→ Facts ── judge (pure) ──→ Report ── text, JSON, YAML
//! ```

mod facts;
mod finding;
mod judge;
mod read;
mod text;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::{Instant, sleep};

use self::{finding::Report, read::Reading};
use super::{Failure, Outcome, installation::InstallationArgs};
use crate::{
    args::{NAME, duration, object_name},
    output::{Format, Progress, Style, to_json, to_yaml, try_print},
};

/// How often everything is asked anew with `--wait`.
const EVERY: Duration = Duration::from_secs(1);

/// Flags of `taskgate doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  taskgate doctor                    what is wrong, and what to do about it
  taskgate doctor --wait 2m          after an installation: ends when taskgate enforces
  taskgate doctor -o json | jq '.findings[] | select(.level != \"ok\")'

Nothing is written: what is created, to see who answers, is created as a dry run.
Exit code 0: all is well; 3: there are warnings; 1: something does not work.")]
pub(crate) struct DoctorArgs {
    /// Leave out what is fine.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Ask again until nothing keeps taskgate from enforcing, for so long at most; 5m if not said.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "5m", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// The form of the answer.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    pub(crate) output: Format,
    /// The Service that the API server reaches taskgate through, which the Deployment is called after.
    #[arg(long, value_name = "NAME", default_value = NAME, value_parser = object_name)]
    pub(crate) service: String,
    #[command(flatten)]
    pub(crate) installation: InstallationArgs,
}

/// RBAC: `get` and `list` on what is looked at, `create` on clustertaskpolicies and Tasks (as a dry run) and on
/// subjectaccessreviews. What may not be read is told as a warning.
pub(crate) async fn run(args: DoctorArgs) -> Result<Outcome, Failure> {
    let connection = args.installation.connect().await?;
    let until = args.wait.map(|period| Instant::now() + period);
    let waiting = Progress::new("waiting for taskgate, what is well");
    let report = loop {
        let report = Report::of(
            match read::read(&connection, args.installation.configuration.as_str(), &args.service).await {
                Reading::Facts(facts) => judge::judge(&facts),
                Reading::NoServer(finding) => vec![finding],
            },
        );
        if report.enforces() || until.is_none_or(|until| Instant::now() + EVERY > until) {
            break report;
        }
        waiting.at(report.ok, report.findings.len());
        sleep(EVERY).await;
    };
    drop(waiting);
    let told = match args.output {
        Format::Text => text::text(&report, Style::of_stdout(), args.quiet),
        format => {
            let mut report = report.clone();
            report
                .findings
                .retain(|finding| !args.quiet || finding.advice.is_some());
            match format {
                Format::Yaml => to_yaml(&report)?,
                _ => to_json(&report)?,
            }
        }
    };
    try_print(&told)?;
    Ok(match (report.failures, report.warnings) {
        (0, 0) => Outcome::Fine,
        (0, _) => Outcome::Warned,
        _ => Outcome::Denied,
    })
}
