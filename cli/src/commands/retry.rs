//! `taskgate retry`: asks that a failed Workload or Task be run again, whatever its count says. The request is an annotation
//! of its WorkItem, which admission stamps with who asked; the controller does the rest. Nothing is written to the object: that
//! alone could start a failed Workload again (foreman §2.2).

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_api::{
    WorkItem, foreman, kelos, keys,
    retry_status::{RetryOrder, RunRef},
    task_policy::RetriedKind,
};
use taskgate_policy::retry::{Retried, RunPhase};

use super::{Connection, ConnectionArgs, Failure, said};
use crate::output;

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
    /// Tell the next run why the last one failed, whatever the policy says.
    #[arg(long)]
    pub(crate) with_feedback: bool,
    /// Ask the API server, but change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// RBAC: `get`, and what taskgate will do in the user's name, `delete` and `create`, on workloads of foreman.llmkube.dev or tasks
/// of kelos.dev; `get`, `create` and `patch` on workitems.
pub(crate) async fn run(args: RetryArgs) -> Result<(), Failure> {
    let connection = args.connection.connect().await?;
    let command = Command { connection, args };
    // One that cannot be retried does not keep the others from it.
    let mut failed = 0;
    for object in &command.args.objects {
        match command.ask(object).await {
            Ok(()) => {}
            Err(Failure::Usage(message)) => return Err(Failure::Usage(message)),
            Err(Failure::Failed(error)) => {
                output::complain(&format!("{object}: {error:#}"));
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(anyhow!("{failed} not retried").into()),
    }
}

/// One run of the command.
struct Command {
    connection: Connection,
    args: RetryArgs,
}

impl Command {
    async fn ask(&self, object: &str) -> Result<(), Failure> {
        let (kinds, name) = meant(object)?;
        let mut found = Vec::new();
        for kind in kinds {
            if let Some(value) = self.read(*kind, name).await? {
                found.push((*kind, value));
            }
        }
        match found.as_slice() {
            [] => Err(anyhow!("there is none in namespace {}", self.connection.namespace).into()),
            [(kind, value)] => Ok(self.request(*kind, value).await?),
            _ => Err(Failure::Usage(format!(
                "{name} is a Workload and a Task: say workload/{name} or task/{name}"
            ))),
        }
    }

    /// The object; a kind that is not installed has none.
    async fn read(&self, kind: RetriedKind, name: &str) -> Result<Option<Value>> {
        let Connection { client, namespace, .. } = &self.connection;
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource(kind));
        let found = api.get_opt(name).await.map_err(said)?;
        found
            .map(|object| serde_json::to_value(object).context("reading the answer"))
            .transpose()
    }

    async fn request(&self, kind: RetriedKind, object: &Value) -> Result<()> {
        let retried = Retried::of(kind, object).ok_or_else(|| anyhow!("a spawner made it, and makes it again"))?;
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
        let name = retried
            .metadata()
            .label(keys::WORK_ITEM)
            .map_or_else(|| identity.work_item_name(), ToOwned::to_owned);
        let found = items.get_opt(&name).await.map_err(said)?;
        if found.as_ref().is_some_and(is_under_way) {
            return Err(anyhow!("it is being retried already"));
        }
        let dry_run = self.args.dry_run;
        if let Some(item) = found {
            let request = json!({"metadata": {"uid": item.uid(), "annotations": {keys::RETRY: text}}});
            let params = PatchParams {
                dry_run,
                ..PatchParams::default()
            };
            items
                .patch(&name, &params, &Patch::Merge(request))
                .await
                .map_err(said)?;
        } else {
            let mut item = identity.work_item(&name);
            item.annotations_mut().insert(keys::RETRY.to_owned(), text);
            let params = PostParams {
                dry_run,
                ..PostParams::default()
            };
            items.create(&params, &item).await.map_err(said)?;
        }
        self.told(&order)
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

    fn told(&self, order: &RetryOrder) -> Result<()> {
        let number = match (order.from_attempt, order.reset) {
            (Some(from), _) => format!(" as attempt {}", from.saturating_add(1)),
            (None, true) => " as attempt 1".to_owned(),
            (None, false) => String::new(),
        };
        let RetryOrder { kind, name, .. } = order;
        let dry = if self.args.dry_run { " (dry run)" } else { "" };
        output::print(&format!("{} {name}: is run again{number}{dry}\n", kind.as_str()))
    }
}

fn is_under_way(item: &WorkItem) -> bool {
    let ledger = item.status.as_ref().and_then(|status| status.retry.as_ref());
    ledger.is_some_and(|ledger| ledger.transition.is_some())
}

/// The kinds and the name that `object` can mean.
fn meant(object: &str) -> Result<(&'static [RetriedKind], &str), Failure> {
    const BOTH: &[RetriedKind] = &[RetriedKind::Workload, RetriedKind::Task];
    let unknown = || Failure::Usage(format!("{object}: say workload/NAME, task/NAME, or NAME"));
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

fn resource(kind: RetriedKind) -> ApiResource {
    let (group, version, plural) = match kind {
        RetriedKind::Workload => (foreman::GROUP, foreman::VERSIONS[0], foreman::WORKLOADS),
        RetriedKind::Task => (kelos::GROUP, kelos::TASK_VERSIONS[0], kelos::TASKS),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind.as_str()), plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_said_by_kind_and_name() {
        let kinds = |object: &str| meant(object).map(|(kinds, name)| (kinds.len(), name.to_owned())).ok();
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
        assert_eq!(meant("workload/a").unwrap().0, [RetriedKind::Workload]);
        assert_eq!(meant("task/a").unwrap().0, [RetriedKind::Task]);
    }
}
