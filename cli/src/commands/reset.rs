//! `taskgate reset`: asks taskgate to forget the failures of work items, so that they are tried again. The history and what it
//! cost stay. The request is an annotation, which admission stamps with who asked.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::{WorkItem, keys, work_item::Breaker};
use taskgate_policy::{clip, failures_to_reset};
use tokio::time::sleep;

use super::{ConnectionArgs, Failure, said};
use crate::output;

/// The longest explanation that is kept, in characters.
const MAX_REASON: usize = 256;
/// What is asked for where no reason is given.
const NO_REASON: &str = "no reason given";
/// How long the controller is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked whether it is done.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

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

/// RBAC: `list`, `get` and `patch` on workitems.
pub(crate) async fn run(args: ResetArgs) -> Result<(), Failure> {
    let connection = args.connection.connect().await?;
    let work_items = Api::<WorkItem>::namespaced(connection.client.clone(), &connection.namespace);
    let known = work_items.list(&ListParams::default()).await.map_err(said)?.items;
    let chosen = choose(&known, &args, &connection.namespace)?;
    let reason = args.reason.as_deref().map(|reason| clip(reason, MAX_REASON));
    let reason = reason.filter(|reason| !reason.is_empty());
    let command = Command {
        reason: reason.unwrap_or_else(|| NO_REASON.to_owned()),
        dry_run: args.dry_run,
        work_items,
    };
    // One that cannot be reset does not keep the others from it.
    let (mut failed, mut asked) = (0, Vec::new());
    for item in chosen {
        match command.ask(item).await {
            Ok(failures) => asked.extend(failures.map(|failures| (item, failures))),
            Err(error) => {
                output::complain(&format!("item {}: {error:#}", item.spec.key));
                failed += 1;
            }
        }
    }
    let deadline = Instant::now() + PATIENCE;
    for (item, failures) in asked {
        if let Err(error) = command.await_done(item, &failures, deadline).await {
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
    work_items: Api<WorkItem>,
    reason: String,
    dry_run: bool,
}

impl Command {
    /// Asks that the failures of `item` be forgotten, unless there are none; which they are.
    async fn ask(&self, item: &WorkItem) -> Result<Option<String>> {
        let key = &item.spec.key;
        let Some(failures) = item.status.as_ref().and_then(failures_to_reset) else {
            output::print(&format!("item {key}: no failures to forget\n"))?;
            return Ok(None);
        };
        let params = PatchParams {
            dry_run: self.dry_run,
            ..PatchParams::default()
        };
        let request = json!({"metadata": {"uid": item.uid(), "annotations": {keys::RESET: self.reason}}});
        let name = item.name_any();
        self.work_items
            .patch(&name, &params, &Patch::Merge(&request))
            .await
            .map_err(said)?;
        if self.dry_run {
            output::print(&format!("item {key}: {failures} would be forgotten (dry run)\n"))?;
            return Ok(None);
        }
        Ok(Some(failures))
    }

    /// The controller takes the annotation off once it is done. A WorkItem that is gone meanwhile remembers nothing either.
    async fn await_done(&self, item: &WorkItem, failures: &str, deadline: Instant) -> Result<()> {
        loop {
            let now = self.work_items.get_opt(&item.name_any()).await.map_err(said)?;
            let now = now.filter(|now| now.uid() == item.uid());
            if !now.is_some_and(|now| now.annotations().contains_key(keys::RESET)) {
                return output::print(&format!("item {}: {failures} forgotten\n", item.spec.key));
            }
            if Instant::now() >= deadline {
                return Err(anyhow!(
                    "asked for, and not done after {} s: the controller does it as soon as it runs (taskgate doctor)",
                    PATIENCE.as_secs()
                ));
            }
            sleep(LOOK_AGAIN).await;
        }
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
}
