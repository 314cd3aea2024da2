//! `taskgate reset`: forgets the failures of work items, so that they are tried again. The history and what it cost stay.

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use jiff::Timestamp;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::{Value, json};
use taskgate_api::{WorkItem, WorkItemStatus, work_item::Breaker};
use taskgate_policy::{clip, reset};

use super::{Connection, ConnectionArgs, Failure, said};
use crate::output;

/// What `status.lastReset.reason` says of it.
const REASON: &str = "ResetByCommand";
/// How often an item that changes at the same time is looked at again.
const ATTEMPTS: usize = 5;
/// The longest explanation that is kept, in characters.
const MAX_MESSAGE: usize = 256;

/// Flags of `taskgate reset`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate reset fixer/42 -n team-a                one item, by its spawner and its number
  taskgate reset --all-open -n team-a --dry-run    what would be forgotten")]
pub(crate) struct ResetArgs {
    /// The items: each a WorkItem's name, `spawner/id`, or just the id where it is unambiguous in the namespace.
    #[arg(value_name = "ITEM", required_unless_present = "all_open")]
    pub(crate) items: Vec<String>,
    /// All items of the namespace that are stopped.
    #[arg(long, conflicts_with = "items")]
    pub(crate) all_open: bool,
    /// Why: kept in the WorkItem and told in an Event, with your name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Ask the API server, but change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// RBAC: `list` and `get` on workitems, `patch` on workitems/status; `create` on events of events.k8s.io for the Event.
pub(crate) async fn run(args: ResetArgs) -> Result<(), Failure> {
    let connection = args.connection.connect().await?;
    let work_items = Api::<WorkItem>::namespaced(connection.client.clone(), &connection.namespace);
    let known = work_items.list(&ListParams::default()).await.map_err(said)?.items;
    let chosen = choose(&known, &args, &connection.namespace)?;
    let user = clip(&connection.user().await.context("asking who you are")?, MAX_MESSAGE);
    let command = Command {
        message: args.reason.as_deref().map(|reason| clip(reason, MAX_MESSAGE)),
        dry_run: args.dry_run,
        connection,
        work_items,
        user,
    };
    // One that cannot be reset does not keep the others from it.
    let mut failed = 0;
    for item in chosen {
        if let Err(error) = command.forget(item.clone()).await {
            output::complain(&format!("item {}: {error:#}", item.spec.key));
            failed += 1;
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(anyhow!("{failed} not reset").into()),
    }
}

/// The items that are meant, each once. Nothing is reset when one of them is not clear.
fn choose<'a>(known: &'a [WorkItem], args: &ResetArgs, namespace: &str) -> Result<Vec<&'a WorkItem>, Failure> {
    if args.all_open {
        return Ok(known.iter().filter(|item| is_open(item)).collect());
    }
    let mut chosen: Vec<&WorkItem> = Vec::new();
    for wanted in &args.items {
        let item = find(known, wanted, namespace)?;
        if !chosen.iter().any(|other| other.name_any() == item.name_any()) {
            chosen.push(item);
        }
    }
    Ok(chosen)
}

fn is_open(item: &WorkItem) -> bool {
    let breaker = item.status.as_ref().and_then(|status| status.breaker);
    matches!(breaker, Some(Breaker::Open | Breaker::HalfOpen))
}

/// The item that `wanted` means: by the WorkItem's name, else by its key, else by the id alone.
fn find<'a>(known: &'a [WorkItem], wanted: &str, namespace: &str) -> Result<&'a WorkItem, Failure> {
    let exact = known
        .iter()
        .find(|item| item.name_any() == wanted)
        .or_else(|| known.iter().find(|item| item.spec.key == wanted));
    if let Some(item) = exact {
        return Ok(item);
    }
    let candidates: Vec<_> = known.iter().filter(|item| item.spec.item == wanted).collect();
    match candidates.as_slice() {
        [] => Err(anyhow!("there is no item {wanted} in namespace {namespace}").into()),
        [item] => Ok(item),
        several => {
            let keys: Vec<_> = several.iter().map(|item| item.spec.key.as_str()).collect();
            let keys = keys.join(", ");
            Err(Failure::Usage(format!("{wanted} can be any of {keys}: say which")))
        }
    }
}

/// One run of the command.
struct Command {
    connection: Connection,
    work_items: Api<WorkItem>,
    user: String,
    message: Option<String>,
    dry_run: bool,
}

impl Command {
    /// Forgets the failures of `item`, unless there are none, and says so.
    async fn forget(&self, mut item: WorkItem) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let status = item.status.clone().unwrap_or_default();
            if is_clean(&status) {
                return output::print(&format!("item {}: no failures to forget\n", item.spec.key));
            }
            let Some(patch) = self.patch(&item, &status) else {
                return Ok(());
            };
            let params = PatchParams {
                dry_run: self.dry_run,
                ..PatchParams::default()
            };
            let name = item.name_any();
            match self
                .work_items
                .patch_status(&name, &params, &Patch::Merge(&patch))
                .await
            {
                Ok(_) => return self.tell(&item, &status).await,
                Err(kube::Error::Api(answer)) if answer.code == 409 => {
                    item = self.work_items.get(&name).await.map_err(said)?;
                }
                Err(error) => return Err(said(error)),
            }
        }
        Err(anyhow!("it keeps changing; try again"))
    }

    /// The change to `item`, and no more: fields that this release does not know survive.
    fn patch(&self, item: &WorkItem, status: &WorkItemStatus) -> Option<Value> {
        let next = reset(status, REASON, None, Timestamp::now())?;
        let last = next.last_reset?;
        Some(json!({
            "metadata": {"resourceVersion": item.resource_version(), "uid": item.uid()},
            "status": {
                "breaker": next.breaker,
                "consecutiveFailures": next.consecutive_failures,
                "infrastructureFailures": next.infrastructure_failures,
                "openedAt": next.opened_at,
                "reason": next.reason,
                "lastReset": {
                    "time": last.time, "reason": last.reason, "taskUid": last.task_uid,
                    "by": self.user, "message": self.message,
                },
            },
        }))
    }

    async fn tell(&self, item: &WorkItem, before: &WorkItemStatus) -> Result<()> {
        let key = &item.spec.key;
        let counted = counted(before);
        if self.dry_run {
            return output::print(&format!("item {key}: {counted} would be forgotten (dry run)\n"));
        }
        output::print(&format!("item {key}: {counted} forgotten\n"))?;
        let why = self.message.as_deref().unwrap_or("no reason given");
        let event = Event {
            type_: EventType::Normal,
            reason: "CircuitReset".to_owned(),
            note: Some(clip(
                &format!("{counted} forgotten by {} with taskgate reset: {why}", self.user),
                1000,
            )),
            action: "Reset".to_owned(),
            secondary: None,
        };
        let reporter = Reporter {
            controller: "taskgate".to_owned(),
            instance: Some("taskgate-reset".to_owned()),
        };
        let recorder = Recorder::new(self.connection.client.clone(), reporter);
        // The reset stands, and the WorkItem itself says who and why.
        if let Err(error) = recorder.publish(&event, &item.object_ref(&())).await {
            output::complain(&format!(
                "item {key} is reset, but there is no Event: {:#}",
                said(error)
            ));
        }
        Ok(())
    }
}

/// Whether there is nothing to forget.
fn is_clean(status: &WorkItemStatus) -> bool {
    let closed = matches!(status.breaker, None | Some(Breaker::Closed));
    closed && status.consecutive_failures == 0 && status.infrastructure_failures == 0
}

/// What is forgotten, for people.
fn counted(status: &WorkItemStatus) -> String {
    let failures = status
        .consecutive_failures
        .saturating_add(status.infrastructure_failures);
    let failures = match failures {
        0 => "the stop by hand".to_owned(),
        1 => "1 failure".to_owned(),
        failures => format!("{failures} failures"),
    };
    match &status.total_cost_usd {
        Some(cost) => format!("{failures} (cost ${cost} so far)"),
        None => failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskgate_api::WorkItemSpec;

    fn item(name: &str, key: &str, id: &str) -> WorkItem {
        let spec = WorkItemSpec {
            key: key.to_owned(),
            item: id.to_owned(),
            spawner: None,
        };
        WorkItem::new(name, spec)
    }

    #[test]
    fn an_item_is_found_by_name_by_key_and_by_an_id_that_is_unambiguous() {
        let known = [
            item("a-42-0", "a/42", "42"),
            item("b-42-0", "b/42", "42"),
            item("b-7-0", "b/7", "7"),
            // A stated item that is called as another's WorkItem.
            item("odd-0", "b-7-0", "b-7-0"),
        ];
        for (wanted, name) in [
            ("a-42-0", "a-42-0"),
            ("a/42", "a-42-0"),
            ("b/42", "b-42-0"),
            ("7", "b-7-0"),
            ("b-7-0", "b-7-0"),
        ] {
            assert_eq!(find(&known, wanted, "team").unwrap().name_any(), name, "{wanted}");
        }
        let ambiguous = find(&known, "42", "team").unwrap_err();
        assert_eq!(ambiguous.to_string(), "42 can be any of a/42, b/42: say which");
        assert!(matches!(ambiguous, Failure::Usage(_)));
        let missing = find(&known, "43", "team").unwrap_err();
        assert_eq!(missing.to_string(), "there is no item 43 in namespace team");
        assert!(matches!(missing, Failure::Failed(_)));
    }

    #[test]
    fn what_is_forgotten_is_counted() {
        let status = |failures, infrastructure, cost: Option<&str>| WorkItemStatus {
            consecutive_failures: failures,
            infrastructure_failures: infrastructure,
            total_cost_usd: cost.map(ToOwned::to_owned),
            ..WorkItemStatus::default()
        };
        assert_eq!(counted(&status(1, 0, None)), "1 failure");
        assert_eq!(counted(&status(3, 2, Some("1.50"))), "5 failures (cost $1.50 so far)");
        assert_eq!(counted(&status(0, 0, None)), "the stop by hand");
        assert!(is_clean(&status(0, 0, Some("1.50"))) && !is_clean(&status(0, 1, None)));
    }
}
