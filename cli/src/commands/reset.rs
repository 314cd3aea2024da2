//! `taskgate reset`: resets the failures of work items, so that they are tried again. The attempt history and the costs stay.
//! The request is an annotation; admission records the user.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::{WorkItem, keys};
use taskgate_policy::{MAX_REASON, clip, failures_to_reset};
use tokio::time::sleep;

use super::work_items::{find, is_tripped};
use crate::{
    cluster::api_error,
    exit::{ExitStatus, all_done},
    flags::{Confirmation, ConnectionArgs, DryRun},
    output,
};

/// How long the command waits for the controller.
const CONTROLLER_TIMEOUT: Duration = Duration::from_secs(20);
/// The interval between two reads of an item meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Flags of `taskgate reset`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate reset fixer/42 -n team-a                one item, by its spawner and its number
  taskgate reset --all-open -n team-a --dry-run    what would be reset
  taskgate reset --all-open -n team-a --yes        without being asked")]
pub(crate) struct ResetArgs {
    /// The items: each a WorkItem's name, `spawner/id`, or just the id where it is unambiguous in the namespace.
    #[arg(value_name = "ITEM", required_unless_present = "all_open")]
    pub(crate) items: Vec<String>,
    /// All items of the namespace whose breaker is open or half-open.
    #[arg(long, conflicts_with = "items")]
    pub(crate) all_open: bool,
    /// The reason, kept in the WorkItem and in an Event, with your name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) confirmation: Confirmation,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// RBAC: `list`, `get` and `patch` on workitems.
pub(crate) async fn run(args: ResetArgs) -> Result<ExitStatus> {
    let connection = args.connection.connect().await?;
    let work_items = Api::<WorkItem>::namespaced(connection.client.clone(), &connection.namespace);
    let items = work_items.list(&ListParams::default()).await.map_err(api_error)?.items;
    let chosen = choose(&items, &args, &connection.namespace)?;
    if args.all_open && !args.dry_run.is_on() {
        let what = format!("Reset {} items of namespace {}", chosen.len(), connection.namespace);
        args.confirmation.ask(&what)?;
    }
    let (mut failed, mut requested) = (0, Vec::new());
    let mut fail = |item: &WorkItem, error: anyhow::Error| {
        output::print_error(&format!("item {}: {error:#}", item.spec.key));
        failed += 1;
    };
    for item in chosen {
        match request(&work_items, &args, item).await {
            Ok(failures) => requested.extend(failures.map(|failures| (item, failures))),
            Err(error) => fail(item, error),
        }
    }
    let deadline = Instant::now() + CONTROLLER_TIMEOUT;
    for (item, failures) in requested {
        if let Err(error) = await_done(&work_items, item, &failures, deadline).await {
            fail(item, error);
        }
    }
    all_done(failed, "reset")
}

/// The items that the arguments name, each once. Nothing is reset when one of them is ambiguous.
fn choose<'a>(items: &'a [WorkItem], args: &ResetArgs, namespace: &str) -> Result<Vec<&'a WorkItem>> {
    if args.all_open {
        return Ok(items.iter().filter(|item| is_tripped(item)).collect());
    }
    let mut chosen: Vec<&WorkItem> = Vec::new();
    for reference in &args.items {
        let item = find(items, reference)?;
        let item = item.with_context(|| format!("there is no item {reference} in namespace {namespace}"))?;
        if !chosen.iter().any(|other| other.name_any() == item.name_any()) {
            chosen.push(item);
        }
    }
    Ok(chosen)
}

/// Requests the reset of `item`, unless it has no failures. Returns the failures.
async fn request(work_items: &Api<WorkItem>, args: &ResetArgs, item: &WorkItem) -> Result<Option<String>> {
    let key = &item.spec.key;
    let Some(failures) = item.status.as_ref().and_then(failures_to_reset) else {
        output::print(&format!("item {key}: no failures to reset\n"))?;
        return Ok(None);
    };
    let reason = args.reason.as_deref().map(|reason| clip(reason, MAX_REASON));
    let reason = reason.filter(|reason| !reason.is_empty());
    let reason = reason.unwrap_or_else(|| "no reason given".to_owned());
    let request = json!({"metadata": {"uid": item.uid(), "annotations": {keys::RESET: reason}}});
    let params = args.dry_run.patch(PatchParams::default());
    if !args.dry_run.is_client() {
        let written = work_items
            .patch(&item.name_any(), &params, &Patch::Merge(&request))
            .await;
        written.map_err(api_error)?;
    }
    if args.dry_run.is_on() {
        output::print(&format!("item {key}: {failures} would be reset (dry run)\n"))?;
        return Ok(None);
    }
    Ok(Some(failures))
}

/// Waits until the controller removes the annotation, or the WorkItem is deleted.
async fn await_done(work_items: &Api<WorkItem>, item: &WorkItem, failures: &str, deadline: Instant) -> Result<()> {
    loop {
        let now = work_items.get_opt(&item.name_any()).await.map_err(api_error)?;
        let now = now.filter(|now| now.uid() == item.uid());
        if !now.is_some_and(|now| now.annotations().contains_key(keys::RESET)) {
            return output::print(&format!("item {}: {failures} reset\n", item.spec.key));
        }
        ensure!(
            Instant::now() < deadline,
            "requested, and not done after {} s: the controller does it as soon as it runs (taskgate doctor)",
            CONTROLLER_TIMEOUT.as_secs()
        );
        sleep(POLL_INTERVAL).await;
    }
}
