//! How often an item is tried.

use std::time::Duration;

use anyhow::ensure;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::{
    keys,
    work_item::{Breaker, Outcome},
};
use taskgate_e2e::{await_gone, await_object, breaker, failures, never};

use crate::support::{governed, limit};

#[tokio::test]
async fn opens_after_the_limit_and_the_spawner_stays_healthy() -> anyhow::Result<()> {
    let fixture = governed("limit", limit(2)).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", Some(0)).await?;
    let first = fixture.fail("fixer-42").await?;
    fixture.await_next_task("fixer-42", &first).await?;
    let second = fixture.fail("fixer-42").await?;
    let item = fixture.await_open("42").await?;
    let status = item.status.clone().unwrap_or_default();
    ensure!(failures(&item) == 2 && status.attempts.len() == 2, "{status:?}");
    ensure!(status.total_cost_usd.as_deref() == Some("0.50"), "{status:?}");
    ensure!(item.owner_references().iter().any(|owner| owner.kind == "TaskSpawner"));
    let before = fixture.failed_cycles("fixer");
    fixture.repo().issue(43);
    fixture.succeed_recorded("fixer-43").await?;
    let condition = fixture
        .await_spawner_condition("fixer", "ItemsCircuitBroken", "True")
        .await?;
    ensure!(
        condition["message"] == "1 item skipped due to max retries: 42",
        "{condition}"
    );
    let tombstone = fixture.tasks().get("fixer-42").await?;
    ensure!(tombstone.uid() == Some(second));
    ensure!(fixture.failed_cycles("fixer") == before, "the spawner failed a cycle");

    // An item that is only observed is not skipped, and without a policy no item is tripped.
    fixture.policy(observed(limit(2))).await?;
    fixture
        .await_spawner_condition("fixer", "ItemsCircuitBroken", "False")
        .await?;
    fixture.await_open("42").await?;
    let delete = ["delete", "taskpolicy", "agents"];
    fixture.kubectl(delete).await?.stdout_ok()?;
    fixture
        .await_work_item("42", "is closed", |item| breaker(item) == Some(Breaker::Closed))
        .await?;
    Ok(())
}

fn observed(mut spec: Value) -> Value {
    spec["mode"] = "Observe".into();
    spec
}

#[tokio::test]
async fn one_means_one_task_and_never_again() -> anyhow::Result<()> {
    let fixture = governed("one", limit(1)).await?;
    fixture.repo().issue(7);
    fixture.issue_spawner("fixer", Some(1)).await?;
    let uid = fixture.fail("fixer-7").await?;
    fixture.await_open("7").await?;
    never("a second Task", Duration::from_secs(6), || async {
        let task = fixture.tasks().get("fixer-7").await?;
        Ok((task.uid().as_deref() != Some(&uid)).then_some(task.name_any()))
    })
    .await
}

#[tokio::test]
async fn the_ttl_of_a_success_works_as_kelos_would() -> anyhow::Result<()> {
    let fixture = governed("ttl", limit(3)).await?;
    fixture.repo().issue(8);
    fixture.issue_spawner("fixer", Some(2)).await?;
    let task = fixture
        .await_task("fixer-8", "is accounted for", |task| {
            task.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING)
        })
        .await?;
    ensure!(task.annotations().get(keys::TTL).map(String::as_str) == Some("2"));
    fixture.repo().issue(8).close();
    fixture.succeed_recorded("fixer-8").await?;
    await_gone(&fixture.tasks(), "fixer-8").await
}

#[tokio::test]
async fn a_success_resets_the_count() -> anyhow::Result<()> {
    let fixture = governed("success", limit(2)).await?;
    fixture.repo().issue(9);
    fixture.issue_spawner("fixer", Some(0)).await?;
    let first = fixture.fail("fixer-9").await?;
    fixture.await_next_task("fixer-9", &first).await?;
    fixture.succeed_recorded("fixer-9").await?;
    fixture
        .await_work_item("9", "is closed", |item| failures(item) == 0)
        .await
        .map(drop)
}

#[tokio::test]
async fn half_open_lets_one_probe_through_and_its_failure_opens_again() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "resetAfter": "3s"}});
    let fixture = governed("half", spec).await?;
    fixture.repo().issue(5);
    fixture.issue_spawner("fixer", None).await?;
    let first = fixture.fail("fixer-5").await?;
    fixture.await_next_task("fixer-5", &first).await?;
    fixture.fail("fixer-5").await?;
    let item = fixture.await_open("5").await?;
    ensure!(failures(&item) == 2);
    ensure!(
        fixture.failed_cycles("fixer") == 0,
        "the probe came too early for admission"
    );
    Ok(())
}

#[tokio::test]
async fn the_backoff_keeps_the_next_attempt_waiting() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 3, "backoff": {"initial": "5s", "max": "1m"}}});
    let fixture = governed("backoff", spec).await?;
    fixture.repo().issue(6);
    // The backoff decides, whatever the TTL.
    fixture.issue_spawner("fixer", Some(7200)).await?;
    let first = fixture.fail("fixer-6").await?;
    let next = fixture.await_next_task("fixer-6", &first).await?;
    let item = fixture
        .await_work_item("6", "one failure", |item| failures(item) == 1)
        .await?;
    let failed = item
        .status
        .and_then(|status| status.last_failure_time)
        .map(|time| time.0);
    let created = next.creation_timestamp().map(|time| time.0);
    let waited = failed
        .zip(created)
        .map(|(failed, created)| created.duration_since(failed).as_secs_f64());
    ensure!(waited.is_some_and(|waited| waited >= 4.0), "{waited:?}");
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn ticks_of_a_cron_spawner_share_one_work_item_by_item_key() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 2, "itemKey": "{{ spawner.metadata.name }}"}});
    let fixture = governed("cron", spec).await?;
    fixture
        .spawner("nightly", &json!({"cron": {"schedule": "* * * * *"}}), &json!({}))
        .await?;
    let mut task = crate::support::task("nightly-20261121-0300");
    task["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "nightly"});
    fixture.created(&task).await?;
    fixture.fail("nightly-20261121-0300").await?;
    task["metadata"]["name"] = "nightly-20261121-0301".into();
    fixture.created(&task).await?;
    fixture.fail("nightly-20261121-0301").await?;
    fixture.await_open("nightly").await?;
    task["metadata"]["name"] = "nightly-20261121-0302".into();
    let told = fixture.create_dry_run(&task).await?.stderr_failed()?;
    ensure!(
        told.contains("item nightly failed 2 times in a row (limit 2)"),
        "{told}"
    );
    Ok(())
}

#[tokio::test]
async fn a_task_that_is_deleted_while_it_waits_is_no_failure() -> anyhow::Result<()> {
    let fixture = governed("deleted", limit(1)).await?;
    let task = crate::support::task_of_item("queued", "q");
    fixture.created(&task).await?;
    let jobs = fixture.jobs();
    await_object(&jobs, "queued", "is there", |_| true).await?;
    fixture.await_task("queued", "is there", |_| true).await?;
    let uid = fixture.tasks().get("queued").await?.uid().unwrap_or_default();
    fixture
        .kubectl(["delete", "task", "queued", "--wait=false"])
        .await?
        .stdout_ok()?;
    let item = fixture
        .await_work_item("q", "its end is recorded", |item| {
            item.status
                .as_ref()
                .is_some_and(|status| status.attempts.iter().any(|attempt| attempt.uid == uid))
        })
        .await?;
    ensure!(failures(&item) == 0);
    let status = item.status.unwrap_or_default();
    ensure!(status.attempts[0].outcome == Outcome::Deleted, "{status:?}");
    await_gone(&fixture.tasks(), "queued").await
}
