//! A cancelled Task is neither a failure nor a success of its item.

use anyhow::ensure;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::{
    WorkItem,
    work_item::{Breaker, Outcome},
};
use taskgate_e2e::merged;

use crate::support::{await_cancelled, cancel, governed, task};

fn attempts(item: &WorkItem) -> usize {
    item.status.as_ref().map_or(0, |status| status.attempts.len())
}

fn of_item(name: &str) -> Value {
    merged(
        task(name),
        &json!({"metadata": {"annotations": {"taskgate.dev/item": "epic"}}}),
    )
}

#[tokio::test]
async fn it_is_recorded_with_who_and_does_not_count() -> anyhow::Result<()> {
    let fixture = governed("counts", json!({"failurePolicy": {"maxRetriesPerItem": 1}})).await?;
    fixture.run(&of_item("first")).await?;
    cancel(&fixture, "first", "x").await?;
    await_cancelled(&fixture, "first").await?;
    let item = fixture
        .await_work_item("epic", "has the attempt", |item| attempts(item) == 1)
        .await?;
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
    fixture.run(&of_item("second")).await.map(drop)
}

#[tokio::test]
async fn after_a_cancelled_probe_another_one_comes() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "resetAfter": "2s"}});
    let fixture = governed("probe", spec).await?;
    fixture.repo().issue(5);
    fixture.issue_spawner("fixer", None).await?;
    let first = fixture.await_task_phase("fixer-5", "Running").await?;
    fixture
        .finish("fixer-5", kelos_standin::Outcome::failed_at_once())
        .await?;
    let other =
        |uid: Option<String>| move |task: &kelos_standin::types::Task| task.uid() != uid && task.phase() == "Running";
    let probe = fixture.await_task("fixer-5", "is a probe", other(first.uid())).await?;
    cancel(&fixture, "fixer-5", "x").await?;
    fixture
        .await_task("fixer-5", "is the next probe", other(probe.uid()))
        .await?;
    let item = fixture
        .await_work_item("5", "has both attempts", |item| attempts(item) == 2)
        .await?;
    ensure!(item.status.unwrap_or_default().consecutive_failures == 1);
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn the_ttl_that_admission_moved_to_an_annotation_applies() -> anyhow::Result<()> {
    let fixture = governed("kept", json!({"failurePolicy": {"maxRetriesPerItem": 3}})).await?;
    let mut object = of_item("short");
    object["spec"]["ttlSecondsAfterFinished"] = 1.into();
    fixture.run(&object).await?;
    cancel(&fixture, "short", "x").await?;
    taskgate_e2e::await_gone(&fixture.tasks(), "short").await?;
    let item = fixture
        .await_work_item("epic", "has the attempt", |item| attempts(item) == 1)
        .await?;
    let status = item.status.unwrap_or_default();
    ensure!(
        status.attempts[0].outcome == Outcome::Cancelled && status.last_reset.is_none(),
        "{status:?}"
    );
    Ok(())
}
