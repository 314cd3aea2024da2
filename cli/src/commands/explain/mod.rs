//! `taskgate explain`: the story of one object. Which policy governs it and why that one, what was changed as it was created,
//! where it waits, and who can let it go on, with which command.
//!
//! ```text
//! API server ── read ──┐
//! files ── offline ────┴→ Snapshot ── Scene (what belongs together) ── Story (pure) ──→ text, JSON, YAML
//! ```

mod admission;
mod cancellation;
mod command;
mod culprit;
mod item;
mod job;
mod object;
mod offline;
mod policy;
mod queue;
mod retry;
mod scene;
mod spawner;
mod story;
mod task;
mod text;
mod waits;
mod workload;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

use self::{
    object::{Found, Wanted},
    offline::Files,
    scene::Scene,
    story::Story,
};
use super::{
    ConnectionArgs, Failure, Outcome,
    snapshot::{Kind, Reach, read},
};
use crate::output::{Format, Style, print, to_json, to_yaml};

/// Flags of `taskgate explain`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate explain fixer-42 -n team-a              a Task, and what it waits for
  taskgate explain item/fixer/42 -n team-a         an item: its attempts, and what starts it again
  taskgate explain spawner/fixer -n team-a         a spawner: its Tasks, and the items that get none
  taskgate explain task/fixer-42 -f dump.yaml      from what kubectl get -o yaml printed

Exit code 0: it was explained; 3: it was, but for what could not be read; 1: there is no such object; 2: it is not clear which one \
is meant.")]
pub(crate) struct ExplainArgs {
    /// The object: task/NAME, job/NAME, item/SPAWNER/ID (or a WorkItem's name), spawner/NAME, workload/NAME (Foreman's), or a
    /// name alone, which is looked for as a Task first.
    #[arg(value_name = "OBJECT")]
    pub(crate) object: String,
    /// Files or folders with what is in the cluster, or - for standard input: no cluster is asked.
    #[arg(short, long, value_name = "FILES", num_args = 1.., conflicts_with_all = ["kubeconfig", "context"])]
    pub(crate) files: Vec<PathBuf>,
    /// The form of the answer.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// RBAC: `list` on tasks and taskspawners of kelos.dev, workitems, taskpolicies, clustertaskpolicies, jobs, and Kueue's and Foreman's
/// workloads; `get` on the namespace; and what [`culprit::ask`] needs. What may not be read is told, and the rest explained.
pub(crate) async fn run(args: ExplainArgs) -> Result<Outcome, Failure> {
    let wanted = Wanted::of(&args.object)?;
    let now = Timestamp::now();
    let (story, whole) = if args.files.is_empty() {
        from_cluster(&args, &wanted, now).await?
    } else {
        from_files(&args, &wanted, now)?
    };
    print(&match args.output {
        Format::Text => text::text(&story, Style::of_stdout()),
        Format::Json => to_json(&story)?,
        Format::Yaml => to_yaml(&story)?,
    })?;
    Ok(if whole { Outcome::Fine } else { Outcome::Warned })
}

/// The story, and whether everything could be read.
async fn from_cluster(args: &ExplainArgs, wanted: &Wanted, now: Timestamp) -> Result<(Story, bool), Failure> {
    let connection = args.connection.connect().await?;
    let reach = Reach::of(connection.clone(), false).await?;
    let snapshot = read(&reach, &Kind::ALL).await?;
    let mut scene = Scene::new(&connection.namespace, &snapshot);
    let asks = matches!(wanted.find(&scene)?, Found::Task(task) if waits::may_blame_kueue(&scene, task));
    if asks {
        scene.kueue = culprit::ask(&connection).await?;
    }
    let found = wanted.find(&scene)?;
    Ok((Story::of(&scene, &found, now), scene.hidden().is_empty()))
}

fn from_files(args: &ExplainArgs, wanted: &Wanted, now: Timestamp) -> Result<(Story, bool), Failure> {
    let default = args.connection.namespace.as_deref().unwrap_or("default");
    let files = Files::read(&args.files, default).any()?;
    let namespace = match &args.connection.namespace {
        Some(namespace) => namespace.clone(),
        None => files.namespace_of(wanted, default)?,
    };
    let snapshot = files.snapshot(&namespace);
    let mut scene = Scene::new(&namespace, &snapshot);
    scene.problems.extend(files.problems.iter().cloned());
    let found = wanted.find(&scene)?;
    Ok((Story::of(&scene, &found, now), scene.hidden().is_empty()))
}
