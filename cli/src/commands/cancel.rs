//! `taskgate cancel`: asks that Tasks be cancelled, or takes that back. Who asks and who may is admission's business.

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{kelos, keys, metadata::Metadata};
use taskgate_policy::{Cancellation, MAX_GRACE, MAX_REASON, clip};

use super::{Connection, ConnectionArgs, Failure, said};
use crate::output;

/// Flags of `taskgate cancel`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate cancel fixer-42 -n team-a --reason stale
  taskgate cancel fixer-42 fixer-43 --grace 60     their agents get a minute
  taskgate cancel fixer-42 --withdraw              as long as that minute is not over")]
pub(crate) struct CancelArgs {
    /// The Tasks.
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
    /// Why: kept on the Task and told in an Event, with your name.
    #[arg(long, value_name = "TEXT", conflicts_with = "withdraw")]
    pub(crate) reason: Option<String>,
    /// How many seconds the agents are warned before. Absent: none.
    #[arg(long, value_name = "SECONDS", conflicts_with = "withdraw", value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_GRACE)))]
    pub(crate) grace: Option<u32>,
    /// Take a request back whose time has not come.
    #[arg(long)]
    pub(crate) withdraw: bool,
    /// Ask the API server, but change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// RBAC: `patch` on tasks of kelos.dev; admission also asks for `delete`.
pub(crate) async fn run(args: CancelArgs) -> Result<(), Failure> {
    let connection = args.connection.connect().await?;
    // One that cannot be cancelled does not keep the others from it.
    let mut failed = 0;
    for task in &args.tasks {
        if let Err(error) = ask(&connection, &args, task).await {
            output::complain(&format!("Task {task}: {error:#}"));
            failed += 1;
        }
    }
    match failed {
        0 => Ok(()),
        failed if args.withdraw => Err(anyhow!("{failed} not withdrawn").into()),
        failed => Err(anyhow!("{failed} not cancelled").into()),
    }
}

async fn ask(connection: &Connection, args: &CancelArgs, name: &str) -> Result<()> {
    let tasks = Api::<DynamicObject>::namespaced_with(connection.client.clone(), &connection.namespace, &resource());
    let params = PatchParams {
        dry_run: args.dry_run,
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations(args)}}));
    let task = tasks.patch(name, &params, &patch).await.map_err(said)?;
    let object = serde_json::to_value(&task).context("reading the answer")?;
    ensure!(
        !Metadata::of(&object).is_terminating(),
        "it is being deleted, which stops its agent as well; nothing else is done"
    );
    let told = told(&object, args).ok_or_else(|| {
        anyhow!(
            "the request did not pass taskgate's admission: it is not installed, or leaves this namespace out. Nothing \
             happens; remove the annotation {}",
            keys::CANCEL
        )
    })?;
    output::print(&format!(
        "Task {name}: {told}{}\n",
        if args.dry_run { " (dry run)" } else { "" }
    ))
}

/// What is written; the same as with kubectl.
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

/// What the Task says now; `None` when nobody took note of the request.
fn told(object: &Value, args: &CancelArgs) -> Option<String> {
    let cancellation = Cancellation::of(object);
    if args.withdraw {
        return Some("not cancelled".to_owned());
    }
    let stamp = cancellation.stamp?;
    Some(format!("cancelled by {}, due at {}", stamp.by, stamp.deadline))
}

fn resource() -> ApiResource {
    let [version, ..] = kelos::TASK_VERSIONS;
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kelos::GROUP, version, "Task"), kelos::TASKS)
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
            dry_run: false,
            connection: ConnectionArgs::default(),
        }
    }

    #[test]
    fn what_is_written_is_what_kubectl_would_write() {
        let written = annotations(&args(false));
        assert_eq!(written[keys::CANCEL_GRACE], "30");
        assert_eq!(
            written[keys::CANCEL].as_str().map(|reason| reason.chars().count()),
            Some(MAX_REASON)
        );
        assert_eq!(annotations(&args(true)), json!({keys::CANCEL: null}));
    }

    #[test]
    fn a_request_that_nobody_stamped_is_none() {
        let mut task = json!({"metadata": {"annotations": {keys::CANCEL: "x"}}});
        assert_eq!(told(&task, &args(false)), None);
        for (key, value) in [
            (keys::CANCELLED_BY, "user:ann"),
            (keys::CANCEL_TRIGGER, "ByHand"),
            (keys::CANCEL_REQUESTED, "2026-11-21T12:00:00Z"),
            (keys::CANCEL_DEADLINE, "2026-11-21T12:00:30Z"),
        ] {
            task["metadata"]["annotations"][key] = value.into();
        }
        let told = told(&task, &args(false));
        assert_eq!(
            told.as_deref(),
            Some("cancelled by user:ann, due at 2026-11-21T12:00:30Z")
        );
    }
}
