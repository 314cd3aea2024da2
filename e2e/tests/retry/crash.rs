//! taskgate is killed after each step of a retry, and started again: the next run comes once, with the right number.

use anyhow::{Context as _, ensure};
use foreman_standin::{CRDS, types::Workload};
use futures::StreamExt as _;
use kube::{
    ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use taskgate_api::{
    WorkItem, WorkItemStatus,
    retry_status::{RetryStage, RetryStatus},
};
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, Shared, eventually};
use tokio::sync::OnceCell;

use crate::{
    steps::{number, stuck, three, workload},
    world::World,
};

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS).crds(kelos_standin::CRDS));
static GATE: OnceCell<Gate> = OnceCell::const_new();

/// What is seen of a step: at that moment taskgate is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// The Workload has failed; nothing is written yet, or just now.
    Failed,
    Recorded,
    Planned,
    Deleting,
    /// The API server has the deletion.
    Terminating,
    Deleted,
    Gone,
    /// The successor is there.
    Created,
    Closed,
}

const STEPS: [Seen; 9] = [
    Seen::Failed,
    Seen::Recorded,
    Seen::Planned,
    Seen::Deleting,
    Seen::Terminating,
    Seen::Deleted,
    Seen::Gone,
    Seen::Created,
    Seen::Closed,
];

impl Seen {
    fn on_memory(self, status: &WorkItemStatus) -> bool {
        let ledger = status.retry.clone().unwrap_or_default();
        let stage = |ledger: &RetryStatus| ledger.transition.as_ref().map(|transition| transition.step);
        match self {
            Self::Recorded => ledger.failure.is_some(),
            Self::Planned => stage(&ledger) == Some(RetryStage::Planned),
            Self::Deleting => stage(&ledger) == Some(RetryStage::Deleting),
            Self::Deleted => stage(&ledger) == Some(RetryStage::Deleted),
            Self::Closed => ledger.attempt == 2 && ledger.transition.is_none() && ledger.failure.is_none(),
            _ => false,
        }
    }

    fn on_workload(self, first: &Workload, workload: &Workload) -> bool {
        let same = workload.uid() == first.uid();
        match self {
            Self::Failed => same && workload.phase() == "Failed",
            Self::Terminating => same && workload.metadata.deletion_timestamp.is_some(),
            Self::Created => !same,
            _ => false,
        }
    }
}

/// Waits until the step is seen by a watch, so that nothing lies between the write and the kill but its delivery.
async fn until(world: &World, first: &Workload, seen: Seen) -> anyhow::Result<()> {
    let name = first.name_any();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut workloads = watcher(world.workloads(), config).default_backoff().boxed();
    let items = watcher(world.ns.api::<WorkItem>(), watcher::Config::default());
    let mut items = items.default_backoff().applied_objects().boxed();
    let of_it = |item: &WorkItem| item.spec.key == format!("Workload/acme/{name}#7");
    let wait = async {
        loop {
            tokio::select! {
                Some(item) = items.next() => {
                    let item = item?;
                    if of_it(&item) && item.status.is_some_and(|status| seen.on_memory(&status)) {
                        return anyhow::Ok(());
                    }
                }
                Some(event) = workloads.next() => match event? {
                    watcher::Event::Apply(workload) | watcher::Event::InitApply(workload)
                        if seen.on_workload(first, &workload) => return Ok(()),
                    watcher::Event::Delete(_) if seen == Seen::Gone => return Ok(()),
                    _ => {}
                },
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .with_context(|| format!("{seen:?} was not seen"))?
}

#[tokio::test]
async fn killed_after_each_step_it_runs_again_once() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let gate = GATE
        .get_or_try_init(|| Gate::builder().serve_flag("--no-leader-election").start(cp))
        .await?;
    let world = World::on(cp, gate, "crash", three(json!({"feedback": true}))).await?;
    for (index, seen) in STEPS.into_iter().enumerate() {
        let name = format!("crash-{index}");
        killed_when(&world, &name, seen)
            .await
            .with_context(|| format!("killed when {seen:?}"))?;
    }
    Ok(())
}

async fn killed_when(world: &World, name: &str, seen: Seen) -> anyhow::Result<()> {
    world.make(&workload(name)).await?;
    let first = world.phase(name, "Dispatched").await?;
    let failing = world.end(name, stuck());
    let (watched, failed) = tokio::join!(until(world, &first, seen), failing);
    world.gate.process().kill().await?;
    watched?;
    failed?;
    world.gate.process().start().await?;
    let second = world.next(&first).await?;
    ensure!(number(&second) == Some("2"), "{:?}", number(&second));
    let memory = eventually("the ledger is closed", PATIENCE, async || {
        let memory = world.memory(name).await?;
        let status = memory.status.unwrap_or_default();
        let closed = status
            .retry
            .as_ref()
            .is_some_and(|retry| retry.transition.is_none() && retry.attempt == 2);
        ensure!(closed, "{:?}", status.retry);
        Ok(status)
    })
    .await?;
    ensure!(memory.attempts.len() == 1, "{:?}", memory.attempts);
    ensure!(memory.attempts.first().map(|attempt| &attempt.uid) == first.uid().as_ref());
    ensure!(
        second.spec.intent.contains("no way forward"),
        "the feedback is lost: {}",
        second.spec.intent
    );
    world.child_of(&second, "code-7").await?;
    // The child is there a moment before it runs.
    eventually("the second run is in the journal", PATIENCE, async || {
        ensure!(world.runs(name) == 2, "{} runs", world.runs(name));
        Ok(())
    })
    .await
}
