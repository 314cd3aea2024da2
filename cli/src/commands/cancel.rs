//! `taskgate cancel`: requests the cancellation of Tasks, or withdraws it. Admission records the user and checks the right.

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{kelos, keys, metadata::Metadata};
use taskgate_policy::{Cancellation, MAX_GRACE, MAX_REASON, clip};

use super::is_task;
use crate::{
    cluster::{Connection, api_error, resource},
    exit::{ExitStatus, all_done},
    flags::{ConnectionArgs, DryRun},
    output,
};

/// Flags of `taskgate cancel`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate cancel fixer-42 -n team-a --reason stale
  taskgate cancel task/fixer-42 fixer-43 --grace 60 their agents get a minute
  taskgate cancel -l kelos.dev/taskspawner=fixer   those that run or wait
  taskgate cancel fixer-42 --withdraw              before that minute is over")]
pub(crate) struct CancelArgs {
    /// The Tasks: each NAME or task/NAME.
    #[arg(value_name = "TASK", value_parser = task_name, required_unless_present = "selector")]
    pub(crate) tasks: Vec<String>,
    /// The Tasks of the namespace with these labels that have not ended.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "tasks")]
    pub(crate) selector: Option<String>,
    /// The reason, kept on the Task and in an Event, with your name.
    #[arg(long, value_name = "TEXT", conflicts_with = "withdraw")]
    pub(crate) reason: Option<String>,
    /// The grace period of the agents, in seconds. Absent: none.
    #[arg(long, value_name = "SECONDS", conflicts_with = "withdraw", value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_GRACE)))]
    pub(crate) grace: Option<u32>,
    /// Withdraw a request that is not due yet.
    #[arg(long)]
    pub(crate) withdraw: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// The name of a Task that is named with or without its kind.
fn task_name(reference: &str) -> Result<String, String> {
    match reference.split_once('/') {
        None => Ok(reference.to_owned()),
        Some((kind, name)) if is_task(kind) && !name.is_empty() && !name.contains('/') => Ok(name.to_owned()),
        Some(_) => Err("neither NAME nor task/NAME".to_owned()),
    }
}

/// RBAC: `patch` on tasks of kelos.dev, with a selector `list`, with `--dry-run=client` only `get`; admission also requires
/// `delete`.
pub(crate) async fn run(args: CancelArgs) -> Result<ExitStatus> {
    let connection = args.connection.connect().await?;
    let tasks = match &args.selector {
        Some(labels) => selected(&connection, labels).await?,
        None => args.tasks.clone(),
    };
    let mut failed = 0;
    for task in &tasks {
        if let Err(error) = request(&connection, &args, task).await {
            output::print_error(&format!("Task {task}: {error:#}"));
            failed += 1;
        }
    }
    all_done(failed, if args.withdraw { "withdrawn" } else { "cancelled" })
}

fn tasks(connection: &Connection) -> Api<DynamicObject> {
    let task = resource(kelos::GROUP, kelos::TASK_VERSIONS[0], "Task", kelos::TASKS);
    connection.api(&task, Some(&connection.namespace))
}

/// The Tasks with these labels that have not ended.
async fn selected(connection: &Connection, labels: &str) -> Result<Vec<String>> {
    let found = tasks(connection).list(&ListParams::default().labels(labels)).await;
    let has_ended = |task: &DynamicObject| {
        let phase = task.data["status"]["phase"].as_str();
        phase.is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase))
    };
    let found = found.map_err(api_error)?.items;
    let names: Vec<_> = found
        .iter()
        .filter(|task| !has_ended(task))
        .map(ResourceExt::name_any)
        .collect();
    if names.is_empty() {
        output::print_error(&format!(
            "no Task in namespace {} with {labels} runs or waits",
            connection.namespace
        ));
    }
    Ok(names)
}

async fn request(connection: &Connection, args: &CancelArgs, name: &str) -> Result<()> {
    let tasks = tasks(connection);
    if args.dry_run.is_client() {
        tasks.get_metadata(name).await.map_err(api_error)?;
        let verb = if args.withdraw { "not be" } else { "be" };
        return output::print(&format!("Task {name}: would {verb} cancelled (dry run)\n"));
    }
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations(args)}}));
    let params = args.dry_run.patch(PatchParams::default());
    let task = tasks.patch(name, &params, &patch).await.map_err(api_error)?;
    let object = serde_json::to_value(&task).context("reading the answer")?;
    ensure!(
        !Metadata::of(&object).is_terminating(),
        "it is being deleted, which stops its agent as well; nothing else is done"
    );
    let result = result(&object, args).with_context(|| {
        format!(
            "taskgate's admission did not see the request: taskgate is not installed, or excludes this namespace. Nothing \
             happens; remove the annotation {}",
            keys::CANCEL
        )
    })?;
    output::print(&format!("Task {name}: {result}{}\n", args.dry_run.suffix()))
}

/// The annotations to write; the same as with kubectl.
fn annotations(args: &CancelArgs) -> Value {
    if args.withdraw {
        return json!({keys::CANCEL: null});
    }
    let reason = clip(args.reason.as_deref().unwrap_or_default(), MAX_REASON);
    let mut annotations = json!({keys::CANCEL: reason});
    if let Some(grace) = args.grace {
        annotations[keys::CANCEL_GRACE] = grace.to_string().into();
    }
    annotations
}

/// The state of the written Task; `None` when admission did not record the request.
fn result(object: &Value, args: &CancelArgs) -> Option<String> {
    if args.withdraw {
        return Some("not cancelled".to_owned());
    }
    let stamp = Cancellation::of(object).stamp?;
    Some(format!("cancelled by {}, due at {}", stamp.by, stamp.deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(withdraw: bool) -> CancelArgs {
        CancelArgs {
            tasks: vec!["t".to_owned()],
            selector: None,
            reason: Some("r".repeat(1000)),
            grace: Some(30),
            withdraw,
            dry_run: DryRun::default(),
            connection: ConnectionArgs::default(),
        }
    }

    #[test]
    fn the_annotations_are_those_that_kubectl_would_write() {
        let written = annotations(&args(false));
        assert_eq!(written[keys::CANCEL_GRACE], "30");
        assert_eq!(
            written[keys::CANCEL].as_str().map(|reason| reason.chars().count()),
            Some(MAX_REASON)
        );
        assert_eq!(annotations(&args(true)), json!({keys::CANCEL: null}));
    }

    #[test]
    fn a_task_is_named_with_or_without_its_kind() {
        for reference in ["t", "task/t", "tasks/t", "task.kelos.dev/t", "tasks.kelos.dev/t"] {
            assert_eq!(task_name(reference).as_deref(), Ok("t"), "{reference}");
        }
        for reference in ["pod/t", "task/", "task/a/b", "/t"] {
            assert!(task_name(reference).is_err(), "{reference}");
        }
    }

    #[test]
    fn a_request_without_a_stamp_was_not_seen_by_admission() {
        let mut task = json!({"metadata": {"annotations": {keys::CANCEL: "x"}}});
        assert_eq!(result(&task, &args(false)), None);
        for (key, value) in [
            (keys::CANCELLED_BY, "user:ann"),
            (keys::CANCEL_TRIGGER, "ByHand"),
            (keys::CANCEL_REQUESTED, "2026-11-21T12:00:00Z"),
            (keys::CANCEL_DEADLINE, "2026-11-21T12:00:30Z"),
        ] {
            task["metadata"]["annotations"][key] = value.into();
        }
        let result = result(&task, &args(false));
        assert_eq!(
            result.as_deref(),
            Some("cancelled by user:ann, due at 2026-11-21T12:00:30Z")
        );
    }
}
