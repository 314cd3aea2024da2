//! A cancelled Task is neither a failure nor a success of its item.

use anyhow::ensure;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_api::{
    WorkItem,
    work_item::{Breaker, Outcome},
};
use taskgate_e2e::{PATIENCE, eventually};

use crate::world::{World, task};

async fn item(world: &World<'_>, what: &str, condition: impl Fn(&WorkItem) -> bool) -> anyhow::Result<WorkItem> {
    eventually(format!("the WorkItem {what}"), PATIENCE, || async {
        let items = world.ns.api::<WorkItem>().list(&ListParams::default()).await?;
        let found = items.items.into_iter().next();
        let found = found.ok_or_else(|| anyhow::anyhow!("none"))?;
        ensure!(condition(&found), "{:?}", found.status);
        Ok(found)
    })
    .await
}

fn attempts(item: &WorkItem) -> usize {
    item.status.as_ref().map_or(0, |status| status.attempts.len())
}

fn of_item(name: &str) -> Value {
    let mut task = task(name);
    task["metadata"]["annotations"] = json!({"taskgate.dev/item": "epic"});
    task
}

#[tokio::test]
async fn it_is_recorded_with_who_and_does_not_count() -> anyhow::Result<()> {
    let world = World::governed("counts", json!({"failurePolicy": {"maxRetriesPerItem": 1}})).await?;
    world.run(&of_item("first")).await?;
    world.cancel("first", "x").await?;
    world.await_cancelled("first").await?;
    let item = item(&world, "has the attempt", |item| attempts(item) == 1).await?;
    let status = item.status.unwrap_or_default();
    ensure!(status.attempts[0].outcome == Outcome::Cancelled, "{status:?}");
    ensure!(
        status.attempts[0].cancelled_by.as_deref() == Some("user:ann"),
        "{status:?}"
    );
    ensure!(
        status.consecutive_failures == 0 && status.breaker != Some(Breaker::Open),
        "{status:?}"
    );
    // The next one may come at once, although the limit is one.
    world.run(&of_item("second")).await.map(drop)
}

#[tokio::test]
async fn a_cancelled_probe_gives_the_probe_back() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "resetAfter": "2s"}});
    let world = World::governed("probe", spec).await?;
    world.repo().issue(5);
    world
        .spawner("fixer", &json!({"githubIssues": {"pollInterval": "1s"}}), &json!({}))
        .await?;
    let first = world
        .await_task("fixer-5", "runs", |task| task.phase() == "Running")
        .await?;
    world
        .agents
        .finish(world.ns.name(), "fixer-5", kelos_standin::Outcome::failed_at_once())
        .await?;
    let other =
        |uid: Option<String>| move |task: &kelos_standin::types::Task| task.uid() != uid && task.phase() == "Running";
    let probe = world.await_task("fixer-5", "is a probe", other(first.uid())).await?;
    world.cancel("fixer-5", "x").await?;
    world
        .await_task("fixer-5", "is the next probe", other(probe.uid()))
        .await?;
    let item = item(&world, "has both attempts", |item| attempts(item) == 2).await?;
    ensure!(item.status.unwrap_or_default().consecutive_failures == 1);
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn the_ttl_that_admission_moved_aside_runs() -> anyhow::Result<()> {
    let world = World::governed("kept", json!({"failurePolicy": {"maxRetriesPerItem": 3}})).await?;
    let mut object = of_item("short");
    object["spec"]["ttlSecondsAfterFinished"] = 1.into();
    world.run(&object).await?;
    world.cancel("short", "x").await?;
    taskgate_e2e::await_gone(&world.tasks(), "short").await?;
    let item = item(&world, "has the attempt", |item| attempts(item) == 1).await?;
    let status = item.status.unwrap_or_default();
    ensure!(
        status.attempts[0].outcome == Outcome::Cancelled && status.last_reset.is_none(),
        "{status:?}"
    );
    Ok(())
}
