//! `taskgate retry`: requests another run of a failed Workload or Task, whatever its number of attempts. The request is an
//! annotation of its WorkItem; admission records the user, and the controller does the rest. The object itself is not written:
//! any write starts a failed Workload again.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{WorkItem, foreman, kelos, keys, retry_status::RetryOrder, task_policy::RetriedKind};
use taskgate_policy::retry::{Retried, RunPhase, attempt_number, following};

use crate::{
    cluster::{Connection, ConnectionArgs, DryRun, api_error, is_not_found},
    exit::{ExitStatus, UsageError, all_done},
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
pub(crate) async fn run(args: RetryArgs) -> Result<ExitStatus> {
    let connection = args.connection.connect().await?;
    let mut failed = 0;
    for object in &args.objects {
        match retry(&connection, &args, object).await {
            Err(error) if !error.is::<UsageError>() => {
                output::print_error(&format!("{object}: {error:#}"));
                failed += 1;
            }
            result => result?,
        }
    }
    all_done(failed, "retried")
}

async fn retry(connection: &Connection, args: &RetryArgs, object: &str) -> Result<()> {
    let (kinds, name) = parse(object)?;
    let namespace = &connection.namespace;
    let mut found = Vec::new();
    for kind in kinds {
        // A kind that is not served has no objects.
        let Some(resource) = retried_resource(connection, *kind).await? else {
            continue;
        };
        let value = connection.get(&resource, Some(namespace), name).await?;
        found.extend(value.map(|value| (*kind, value)));
    }
    match found.as_slice() {
        [] => bail!("there is none in namespace {namespace}"),
        [(kind, value)] => request(connection, args, *kind, value).await,
        _ => bail!(UsageError(format!(
            "{name} is a Workload and a Task: name workload/{name} or task/{name}"
        ))),
    }
}

async fn request(connection: &Connection, args: &RetryArgs, kind: RetriedKind, object: &Value) -> Result<()> {
    let retried = Retried::of(kind, object).context("its spawner creates it again; it needs no retry")?;
    let (metadata, identity, run) = (retried.metadata(), retried.item(), retried.run());
    ensure!(!metadata.is_terminating(), "it is being deleted");
    ensure!(
        retried.phase() == RunPhase::Failed,
        "it has not failed: there is nothing to retry"
    );
    let items = Api::<WorkItem>::namespaced(connection.client.clone(), &connection.namespace);
    let label = metadata.label(keys::WORK_ITEM);
    let name = label.map_or_else(|| identity.work_item_name(), ToOwned::to_owned);
    let found = match items.get(&name).await {
        Ok(item) => Some(item),
        Err(error) if is_not_found(&error) => None,
        Err(error) => return Err(api_error(error)),
    };
    let status = found.as_ref().and_then(|item| item.status.as_ref()?.retry.as_ref());
    let is_in_progress = status.is_some_and(|retry| retry.transition.is_some());
    ensure!(!is_in_progress, "it is being retried already");
    let (title, number) = (run.to_string(), next_number(args, retried, found.as_ref()));
    let order = RetryOrder {
        kind: run.kind,
        name: run.name,
        uid: run.uid,
        from_attempt: args.from_attempt,
        reset: args.reset,
        with_feedback: args.with_feedback,
    };
    let text = serde_json::to_string(&order).context("writing the request")?;
    let written = if let Some(item) = found {
        let request = json!({"metadata": {"uid": item.uid(), "annotations": {keys::RETRY: text}}});
        let params = args.dry_run.patch(PatchParams::default());
        items.patch(&name, &params, &Patch::Merge(request)).await
    } else {
        let mut item = identity.work_item(&name);
        item.annotations_mut().insert(keys::RETRY.to_owned(), text);
        items.create(&args.dry_run.post(), &item).await
    };
    written.map_err(|error| {
        if is_not_found(&error) {
            anyhow!("the API server has no WorkItems: taskgate is not installed")
        } else {
            api_error(error)
        }
    })?;
    output::print(&format!(
        "{title}: is run again as attempt {number}{}\n",
        args.dry_run.suffix()
    ))
}

/// The number of the next run, as the controller counts.
fn next_number(args: &RetryArgs, retried: Retried<'_>, item: Option<&WorkItem>) -> u32 {
    let status = item.and_then(|item| item.status.as_ref()?.retry.as_ref());
    let failed = || {
        let stated = retried.stated_attempt(foreman::ANNOTATION_PREFIX);
        attempt_number(&status.cloned().unwrap_or_default(), retried.uid(), stated)
    };
    match (args.from_attempt, args.reset) {
        (_, true) => 1,
        (from, false) => following(from.unwrap_or_else(failed)),
    }
}

/// The kinds and the name that `object` can mean.
fn parse(object: &str) -> Result<(&'static [RetriedKind], &str)> {
    const BOTH: &[RetriedKind] = &[RetriedKind::Workload, RetriedKind::Task];
    let unknown = || UsageError(format!("{object} is not of the form workload/NAME, task/NAME, or NAME"));
    let (kinds, name) = match object.split_once('/') {
        None => (BOTH, object),
        Some(("workload" | "workloads" | "wl" | "workloads.foreman.llmkube.dev", name)) => (&BOTH[..1], name),
        Some(("task" | "tasks" | "tasks.kelos.dev", name)) => (&BOTH[1..], name),
        Some(_) => bail!(unknown()),
    };
    ensure!(!name.is_empty() && !name.contains('/'), unknown());
    Ok((kinds, name))
}

async fn retried_resource(connection: &Connection, kind: RetriedKind) -> Result<Option<ApiResource>> {
    let (group, versions, plural) = match kind {
        RetriedKind::Workload => (foreman::GROUP, foreman::VERSIONS.as_slice(), foreman::WORKLOADS),
        RetriedKind::Task => (kelos::GROUP, kelos::TASK_VERSIONS.as_slice(), kelos::TASKS),
    };
    connection.served(group, versions, kind.as_ref(), plural).await
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
