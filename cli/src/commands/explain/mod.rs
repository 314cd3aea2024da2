//! `taskgate explain`: explains one object: which policy governs it and why that one, what admission changed, what it waits for,
//! and the command that unblocks it.
//!
//! ```text
//! API server ── read ──┐
//! files ───────────────┴→ Snapshot ── ExplainContext ── Explanation (pure) ──→ text, JSON, YAML
//! ```

mod blocker;
mod explanation;
mod input;
mod item;
mod objects;
mod policy;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

use self::{
    explanation::{Explanation, Line, Topic},
    input::{ExplainContext, Files, FoundObject, ObjectName},
};
use super::snapshot::{Collection, SnapshotReader};
use crate::{
    exit::ExitStatus,
    flags::{ConnectionArgs, WarningsArgs},
    output::{OutputFormat, Style, print},
};

/// Flags of `taskgate explain`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate explain fixer-42 -n team-a              a Task, and what it waits for
  taskgate explain item/fixer/42 -n team-a         an item: its attempts, and what starts it again
  taskgate explain spawner/fixer -n team-a         a spawner: its Tasks, and the items that get none
  taskgate explain task/fixer-42 -f dump.yaml      from the output of kubectl get -o yaml

Exit code 0: it was explained; 3 (--warnings-exit-code): it was, except for what could not be read; 1: there is no such object; 2: the name is \
ambiguous.")]
pub(crate) struct ExplainArgs {
    /// The object: task/NAME, job/NAME, item/SPAWNER/ID (or a WorkItem's name), spawner/NAME, workload/NAME (Foreman's), or a
    /// name alone, which is taken for a Task first.
    #[arg(value_name = "OBJECT")]
    pub(crate) object: String,
    /// Files or folders with the objects of a cluster, or - for standard input; no cluster is read.
    #[arg(short, long = "filename", alias = "files", value_name = "FILES", num_args = 1.., conflicts_with_all = ["kubeconfig", "context"])]
    pub(crate) files: Vec<PathBuf>,
    /// The form of the result.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    pub(crate) output: OutputFormat,
    #[command(flatten)]
    pub(crate) warnings: WarningsArgs,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// RBAC: `list` on tasks and taskspawners of kelos.dev, workitems, taskpolicies, clustertaskpolicies, jobs, and Kueue's and Foreman's
/// workloads; `get` on the namespace; and the rights of [`blocker::kueue`]. What may not be read is named, and the rest explained.
pub(crate) async fn run(args: ExplainArgs) -> Result<ExitStatus> {
    let object = ObjectName::parse(&args.object)?;
    let explanation = if args.files.is_empty() {
        from_cluster(&args, &object).await?
    } else {
        from_files(&args, &object)?
    };
    let text = || explanation.text(Style::of_stdout());
    print(&args.output.render(&explanation, text)?)?;
    Ok(if explanation.is_complete() {
        ExitStatus::Success
    } else {
        ExitStatus::Warnings
    })
}

async fn from_cluster(args: &ExplainArgs, object: &ObjectName) -> Result<Explanation> {
    let connection = args.connection.connect().await?;
    let reader = SnapshotReader::discover(connection.clone(), false).await?;
    let queries = Collection::EXPLAIN.map(|collection| reader.query(collection));
    let snapshot = reader.read(queries).await.if_reachable()?;
    let mut context = ExplainContext::new(&connection.namespace, &snapshot);
    if matches!(object.get(&context)?, FoundObject::Task(task) if blocker::may_be_kueue(&context, task)) {
        context.kueue = blocker::kueue(&connection).await?;
    }
    let found = object.get(&context)?;
    Ok(explain(&context, &found, Timestamp::now()))
}

fn from_files(args: &ExplainArgs, object: &ObjectName) -> Result<Explanation> {
    let default = args.connection.namespace.as_deref().unwrap_or("default");
    let files = Files::read(&args.files, default)?;
    let namespace = match &args.connection.namespace {
        Some(namespace) => namespace.clone(),
        None => files.namespace_of(object, default)?,
    };
    let snapshot = files.snapshot(&namespace);
    let mut context = ExplainContext::new(&namespace, &snapshot);
    context.problems.extend(files.problems);
    let found = object.get(&context)?;
    Ok(explain(&context, &found, Timestamp::now()))
}

fn explain(context: &ExplainContext<'_>, found: &FoundObject<'_>, now: Timestamp) -> Explanation {
    let mut explanation = match found {
        FoundObject::Task(task) => objects::explain_task(context, task, now),
        FoundObject::Job(job) => objects::explain_job(context, job),
        FoundObject::Item(item) => item::explain(context, item, now),
        FoundObject::Spawner(spawner) => objects::explain_spawner(context, spawner, now),
        FoundObject::Workload(workload) => objects::explain_workload(context, workload, now),
    };
    let hidden = context.hidden();
    explanation
        .lines
        .extend(hidden.iter().map(|text| Line::new(Topic::Hidden, text)));
    explanation
}
