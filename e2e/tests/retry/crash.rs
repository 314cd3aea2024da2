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
use taskgate_e2e::{ControlPlane, ForemanFixture, Gate, PATIENCE, attempt_number, eventually, stuck};

use crate::support::{start_on, three, work_item_of, workload};

/// A step, by the change that a watch sees: at that moment taskgate is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// The Workload has failed; nothing is written yet, or just now.
    Failed,
    Recorded,
    Planned,
    Deleting,
    /// The API server has accepted the deletion.
    Terminating,
    Deleted,
    Gone,
    /// The successor exists.
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
    fn on_work_item(self, status: &WorkItemStatus) -> bool {
        let retry = status.retry.clone().unwrap_or_default();
        let stage = |retry: &RetryStatus| retry.transition.as_ref().map(|transition| transition.step);
        match self {
            Self::Recorded => retry.failure.is_some(),
            Self::Planned => stage(&retry) == Some(RetryStage::Planned),
            Self::Deleting => stage(&retry) == Some(RetryStage::Deleting),
            Self::Deleted => stage(&retry) == Some(RetryStage::Deleted),
            Self::Closed => retry.attempt == 2 && retry.transition.is_none() && retry.failure.is_none(),
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

/// Waits until the step is seen by a watch, so that taskgate is killed as soon as possible after the write.
async fn until(fixture: &ForemanFixture<'_>, first: &Workload, seen: Seen) -> anyhow::Result<()> {
    let name = first.name_any();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut workloads = watcher(fixture.workloads(), config).default_backoff().boxed();
    let items = watcher(fixture.work_items(), watcher::Config::default());
    let mut items = items.default_backoff().applied_objects().boxed();
    let of_it = |item: &WorkItem| item.spec.key == format!("Workload/acme/{name}#7");
    let wait = async {
        loop {
            tokio::select! {
                Some(item) = items.next() => {
                    let item = item?;
                    if of_it(&item) && item.status.is_some_and(|status| seen.on_work_item(&status)) {
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
    let cp = ControlPlane::builder().crds(CRDS).crds(kelos_standin::CRDS);
    let cp = cp.start().await?;
    let gate = Gate::builder().without_leader_election().start(&cp).await?;
    let fixture = start_on(&cp, &gate, "crash", three(json!({"feedback": true})), |options| options).await?;
    for (index, seen) in STEPS.into_iter().enumerate() {
        let name = format!("crash-{index}");
        killed_when(&fixture, &name, seen)
            .await
            .with_context(|| format!("killed when {seen:?}"))?;
    }
    Ok(())
}

async fn killed_when(fixture: &ForemanFixture<'_>, name: &str, seen: Seen) -> anyhow::Result<()> {
    fixture.created(&workload(name)).await?;
    let first = fixture.await_workload_phase(name, "Dispatched").await?;
    let failing = fixture.end(name, stuck());
    let (watched, failed) = tokio::join!(until(fixture, &first, seen), failing);
    fixture.gate.process().kill().await?;
    watched?;
    failed?;
    fixture.gate.process().start().await?;
    let second = fixture.await_successor(&first).await?;
    ensure!(attempt_number(&second) == Some("2"), "{:?}", attempt_number(&second));
    let item = eventually("the transition is complete", PATIENCE, async || {
        let item = work_item_of(fixture, name).await?;
        let status = item.status.unwrap_or_default();
        let closed = status
            .retry
            .as_ref()
            .is_some_and(|retry| retry.transition.is_none() && retry.attempt == 2);
        ensure!(closed, "{:?}", status.retry);
        Ok(status)
    })
    .await?;
    ensure!(item.attempts.len() == 1, "{:?}", item.attempts);
    ensure!(item.attempts.first().map(|attempt| &attempt.uid) == first.uid().as_ref());
    ensure!(
        second.spec.intent.contains("no way forward"),
        "the feedback is missing: {}",
        second.spec.intent
    );
    fixture.await_child(&second, "code-7").await?;
    // The child is there a moment before it runs.
    eventually("the second run is in the journal", PATIENCE, async || {
        ensure!(fixture.runs(name) == 2, "{} runs", fixture.runs(name));
        Ok(())
    })
    .await
}
