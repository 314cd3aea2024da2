//! `taskgate retry`: requests another run of a failed Workload or Task, whatever its number of attempts. The request is an
//! annotation of its WorkItem; admission records the user, and the controller does the rest. The object itself is not written:
//! any write starts a failed Workload again.

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{
    WorkItem, foreman, kelos, keys,
    retry_status::{RetryOrder, RunRef},
    task_policy::RetriedKind,
};
use taskgate_policy::retry::{Retried, RunPhase, attempt_number, following};

use crate::{
    cluster::{Connection, ConnectionArgs, DryRun, ResourceType, api_error, is_not_found},
    exit::{CommandError, all_done},
    output,
};

/// Flags of `taskgate retry`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate retry workload/fix-42 -n team-a --dry-run
  taskgate retry workload/fix-42 task/review-7 -n team-a")]
pub(crate) struct RetryArgs {
    /// The failed objects: each workload/NAME, task/NAME, or just the name where it is unambiguous in the namespace.
    #[arg(value_name = "OBJECT", required = true)]
    pub(crate) objects: Vec<String>,
    /// Count as if the failed run had been this one: the next is one more.
    #[arg(long, value_name = "N", conflicts_with = "reset", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) from_attempt: Option<u32>,
    /// Count from the beginning again: the next run is the first.
    #[arg(long)]
    pub(crate) reset: bool,
    /// Give the next run the failure of the last one as feedback, whatever the policy sets.
    #[arg(long)]
    pub(crate) with_feedback: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// RBAC: `get`, `delete` and `create` (which taskgate does for the user) on workloads of foreman.llmkube.dev or tasks of
/// kelos.dev; `get`, `create` and `patch` on workitems.
pub(crate) async fn run(args: RetryArgs) -> Result<(), CommandError> {
    let connection = args.connection.connect().await?;
    let command = RetryCommand { connection, args };
    let mut failed = 0;
    for object in &command.args.objects {
        match command.retry(object).await {
            Ok(()) => {}
            Err(CommandError::Usage(message)) => return Err(CommandError::Usage(message)),
            Err(CommandError::Failed(error)) => {
                output::print_error(&format!("{object}: {error:#}"));
                failed += 1;
            }
        }
    }
    all_done(failed, "retried")
}

/// One run of the command.
struct RetryCommand {
    connection: Connection,
    args: RetryArgs,
}

impl RetryCommand {
    async fn retry(&self, object: &str) -> Result<(), CommandError> {
        let (kinds, name) = parse(object)?;
        let Connection { namespace, .. } = &self.connection;
        let mut found = Vec::new();
        for kind in kinds {
            let value = self.connection.get(resource(*kind), Some(namespace), name).await?;
            found.extend(value.map(|value| (*kind, value)));
        }
        match found.as_slice() {
            [] => Err(anyhow!("there is none in namespace {namespace}").into()),
            [(kind, value)] => Ok(self.request(*kind, value).await?),
            _ => Err(CommandError::Usage(format!(
                "{name} is a Workload and a Task: name workload/{name} or task/{name}"
            ))),
        }
    }

    async fn request(&self, kind: RetriedKind, object: &Value) -> Result<()> {
        let retried =
            Retried::of(kind, object).ok_or_else(|| anyhow!("its spawner creates it again; it needs no retry"))?;
        if retried.metadata().is_terminating() {
            return Err(anyhow!("it is being deleted"));
        }
        if retried.phase() != RunPhase::Failed {
            return Err(anyhow!("it has not failed: there is nothing to retry"));
        }
        let order = self.order(retried.run());
        let text = serde_json::to_string(&order).context("writing the request")?;
        let identity = retried.item();
        let items = Api::<WorkItem>::namespaced(self.connection.client.clone(), &self.connection.namespace);
        let label = retried.metadata().label(keys::WORK_ITEM);
        let name = label.map_or_else(|| identity.work_item_name(), ToOwned::to_owned);
        let found = match items.get(&name).await {
            Ok(item) => Some(item),
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(api_error(error)),
        };
        if found.as_ref().is_some_and(is_in_progress) {
            return Err(anyhow!("it is being retried already"));
        }
        let dry_run = self.args.dry_run;
        let number = self.next_number(retried, found.as_ref());
        if let Some(item) = found {
            let request = json!({"metadata": {"uid": item.uid(), "annotations": {keys::RETRY: text}}});
            let params = dry_run.patch(PatchParams::default());
            let written = items.patch(&name, &params, &Patch::Merge(request)).await;
            written.map_err(api_error)?;
        } else {
            let mut item = identity.work_item(&name);
            item.annotations_mut().insert(keys::RETRY.to_owned(), text);
            items
                .create(&dry_run.post(), &item)
                .await
                .map_err(|error| match error {
                    error if is_not_found(&error) => {
                        anyhow!("the API server has no WorkItems: taskgate is not installed")
                    }
                    error => api_error(error),
                })?;
        }
        let RetryOrder { kind, name, .. } = order;
        output::print(&format!(
            "{} {name}: is run again as attempt {number}{}\n",
            kind.as_str(),
            dry_run.suffix()
        ))
    }

    /// The number of the next run, as the controller counts.
    fn next_number(&self, retried: Retried<'_>, item: Option<&WorkItem>) -> u32 {
        let status = item
            .and_then(|item| item.status.as_ref()?.retry.clone())
            .unwrap_or_default();
        let failed = || {
            attempt_number(
                &status,
                retried.uid(),
                retried.stated_attempt(foreman::ANNOTATION_PREFIX),
            )
        };
        match (self.args.from_attempt, self.args.reset) {
            (_, true) => 1,
            (from, false) => following(from.unwrap_or_else(failed)),
        }
    }

    fn order(&self, run: RunRef) -> RetryOrder {
        RetryOrder {
            kind: run.kind,
            name: run.name,
            uid: run.uid,
            from_attempt: self.args.from_attempt,
            reset: self.args.reset,
            with_feedback: self.args.with_feedback,
        }
    }
}

/// Whether a retry of the item's run is in progress.
fn is_in_progress(item: &WorkItem) -> bool {
    let retry_status = item.status.as_ref().and_then(|status| status.retry.as_ref());
    retry_status.is_some_and(|retry_status| retry_status.transition.is_some())
}

/// The kinds and the name that `object` can mean.
fn parse(object: &str) -> Result<(&'static [RetriedKind], &str), CommandError> {
    const BOTH: &[RetriedKind] = &[RetriedKind::Workload, RetriedKind::Task];
    let unknown = || CommandError::Usage(format!("{object} is not of the form workload/NAME, task/NAME, or NAME"));
    let (kinds, name) = match object.split_once('/') {
        None => (BOTH, object),
        Some(("workload" | "workloads" | "wl" | "workloads.foreman.llmkube.dev", name)) => (&BOTH[..1], name),
        Some(("task" | "tasks" | "tasks.kelos.dev", name)) => (&BOTH[1..], name),
        Some(_) => return Err(unknown()),
    };
    if name.is_empty() || name.contains('/') {
        return Err(unknown());
    }
    Ok((kinds, name))
}

fn resource(kind: RetriedKind) -> ResourceType {
    match kind {
        RetriedKind::Workload => (foreman::GROUP, foreman::VERSIONS[0], "Workload", foreman::WORKLOADS),
        RetriedKind::Task => (kelos::GROUP, kelos::TASK_VERSIONS[0], "Task", kelos::TASKS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_by_kind_and_name() {
        let kinds = |object: &str| parse(object).map(|(kinds, name)| (kinds.len(), name.to_owned())).ok();
        for (object, expected) in [
            ("wl-a-7", Some((2, "wl-a-7".to_owned()))),
            ("workload/wl-a-7", Some((1, "wl-a-7".to_owned()))),
            ("task/t", Some((1, "t".to_owned()))),
            ("tasks.kelos.dev/t", Some((1, "t".to_owned()))),
            ("pod/t", None),
            ("task/", None),
            ("task/a/b", None),
        ] {
            assert_eq!(kinds(object), expected, "{object}");
        }
        assert_eq!(parse("workload/a").unwrap().0, [RetriedKind::Workload]);
        assert_eq!(parse("task/a").unwrap().0, [RetriedKind::Task]);
    }
}
