//! `taskgate cancel`: requests the cancellation of Tasks, or withdraws it. Admission records the user and checks the right.

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use taskgate_api::{kelos, keys, metadata::Metadata};
use taskgate_policy::{Cancellation, MAX_GRACE, MAX_REASON, clip};

use crate::{
    cluster::{Connection, ConnectionArgs, DryRun, api_error},
    exit::{ExitStatus, all_done},
    output,
};

/// Flags of `taskgate cancel`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate cancel fixer-42 -n team-a --reason stale
  taskgate cancel fixer-42 fixer-43 --grace 60     their agents get a minute
  taskgate cancel fixer-42 --withdraw              before that minute is over")]
pub(crate) struct CancelArgs {
    /// The Tasks.
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
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

/// RBAC: `patch` on tasks of kelos.dev; admission also requires `delete`.
pub(crate) async fn run(args: CancelArgs) -> Result<ExitStatus> {
    let connection = args.connection.connect().await?;
    let mut failed = 0;
    for task in &args.tasks {
        if let Err(error) = request(&connection, &args, task).await {
            output::print_error(&format!("Task {task}: {error:#}"));
            failed += 1;
        }
    }
    all_done(failed, if args.withdraw { "withdrawn" } else { "cancelled" })
}

async fn request(connection: &Connection, args: &CancelArgs, name: &str) -> Result<()> {
    let task = connection.kelos("Task", kelos::TASKS).await?;
    let task = task.context("Kelos is not installed")?;
    let tasks = connection.api(&task, Some(&connection.namespace));
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
