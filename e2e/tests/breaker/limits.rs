//! How often an item is tried.

use std::time::Duration;

use anyhow::ensure;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::{
    keys,
    work_item::{Breaker, Outcome},
};
use taskgate_e2e::{await_gone, await_object, never};

use crate::world::{World, breaker, failures, limit};

#[tokio::test]
async fn opens_after_the_limit_and_the_spawner_stays_healthy() -> anyhow::Result<()> {
    let world = World::governed("limit", limit(2)).await?;
    world.repo().issue(42);
    world.spawner("fixer", Some(0)).await?;
    let first = world.fail("fixer-42").await?;
    world.next("fixer-42", &first).await?;
    let second = world.fail("fixer-42").await?;
    let item = world.open("42").await?;
    let status = item.status.clone().unwrap_or_default();
    ensure!(failures(&item) == 2 && status.attempts.len() == 2, "{status:?}");
    ensure!(status.total_cost_usd.as_deref() == Some("0.50"), "{status:?}");
    ensure!(item.owner_references().iter().any(|owner| owner.kind == "TaskSpawner"));
    let before = world.failed_cycles("fixer");
    world.repo().issue(43);
    world.succeed("fixer-43").await?;
    let condition = world.condition("fixer", "tells of 42", "True").await?;
    ensure!(
        condition["message"] == "1 item skipped due to max retries: 42",
        "{condition}"
    );
    let tombstone = world.tasks().get("fixer-42").await?;
    ensure!(tombstone.uid() == Some(second));
    ensure!(world.failed_cycles("fixer") == before, "the spawner failed a cycle");

    // What is only observed is not skipped, and without a policy nothing is open.
    world.policy(observed(limit(2))).await?;
    world.condition("fixer", "tells of nothing", "False").await?;
    world.open("42").await?;
    let delete = ["delete", "taskpolicy", "agents"];
    world.ns.kubectl(delete).await?.stdout_ok()?;
    world
        .item("42", "is closed", |item| breaker(item) == Some(Breaker::Closed))
        .await?;
    Ok(())
}

fn observed(mut spec: Value) -> Value {
    spec["mode"] = "Observe".into();
    spec
}

#[tokio::test]
async fn one_means_one_task_and_never_again() -> anyhow::Result<()> {
    let world = World::governed("one", limit(1)).await?;
    world.repo().issue(7);
    world.spawner("fixer", Some(1)).await?;
    let uid = world.fail("fixer-7").await?;
    world.open("7").await?;
    never("a second Task", Duration::from_secs(6), || async {
        let task = world.tasks().get("fixer-7").await?;
        Ok((task.uid().as_deref() != Some(&uid)).then_some(task.name_any()))
    })
    .await
}

#[tokio::test]
async fn the_ttl_of_a_success_works_as_kelos_would() -> anyhow::Result<()> {
    let world = World::governed("ttl", limit(3)).await?;
    world.repo().issue(8);
    world.spawner("fixer", Some(2)).await?;
    let task = await_object(&world.tasks(), "fixer-8", "is accounted for", |task| {
        task.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING)
    })
    .await?;
    ensure!(task.annotations().get(keys::TTL).map(String::as_str) == Some("2"));
    world.repo().issue(8).close();
    world.succeed("fixer-8").await?;
    await_gone(&world.tasks(), "fixer-8").await
}

#[tokio::test]
async fn a_success_ends_the_row() -> anyhow::Result<()> {
    let world = World::governed("success", limit(2)).await?;
    world.repo().issue(9);
    world.spawner("fixer", Some(0)).await?;
    let first = world.fail("fixer-9").await?;
    world.next("fixer-9", &first).await?;
    world.succeed("fixer-9").await?;
    world.item("9", "is closed", |item| failures(item) == 0).await.map(drop)
}

#[tokio::test]
async fn half_open_lets_one_probe_through_and_its_failure_opens_again() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "resetAfter": "3s"}});
    let world = World::governed("half", spec).await?;
    world.repo().issue(5);
    world.spawner("fixer", None).await?;
    let first = world.fail("fixer-5").await?;
    world.next("fixer-5", &first).await?;
    world.fail("fixer-5").await?;
    let item = world.open("5").await?;
    ensure!(failures(&item) == 2);
    ensure!(
        world.failed_cycles("fixer") == 0,
        "the probe came too early for admission"
    );
    Ok(())
}

#[tokio::test]
async fn the_backoff_keeps_the_next_attempt_waiting() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 3, "backoff": {"initial": "5s", "max": "1m"}}});
    let world = World::governed("backoff", spec).await?;
    world.repo().issue(6);
    world.spawner("fixer", Some(0)).await?;
    let first = world.fail("fixer-6").await?;
    let next = world.next("fixer-6", &first).await?;
    let item = world.item("6", "one failure", |item| failures(item) == 1).await?;
    let failed = item
        .status
        .and_then(|status| status.last_failure_time)
        .map(|time| time.0);
    let created = next.creation_timestamp().map(|time| time.0);
    let waited = failed
        .zip(created)
        .map(|(failed, created)| created.duration_since(failed).as_secs_f64());
    ensure!(waited.is_some_and(|waited| waited >= 4.0), "{waited:?}");
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn ticks_of_a_cron_spawner_share_one_memory_by_item_key() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 2, "itemKey": "{{ spawner.metadata.name }}"}});
    let world = World::governed("cron", spec).await?;
    world
        .spawner_when("nightly", json!({"cron": {"schedule": "* * * * *"}}), None)
        .await?;
    let mut task = crate::world::by_hand("nightly-20261121-0300", None);
    task["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "nightly"});
    world.create(&task, false).await?.stdout_ok()?;
    world.fail("nightly-20261121-0300").await?;
    task["metadata"]["name"] = "nightly-20261121-0301".into();
    world.create(&task, false).await?.stdout_ok()?;
    world.fail("nightly-20261121-0301").await?;
    world.open("nightly").await?;
    task["metadata"]["name"] = "nightly-20261121-0302".into();
    let told = world.create(&task, true).await?.stderr_failed()?;
    ensure!(
        told.contains("item nightly failed 2 times in a row (limit 2)"),
        "{told}"
    );
    Ok(())
}

#[tokio::test]
async fn a_task_that_is_deleted_while_it_waits_is_no_failure() -> anyhow::Result<()> {
    let world = World::governed("deleted", limit(1)).await?;
    let task = crate::world::by_hand("queued", Some("q"));
    world.create(&task, false).await?.stdout_ok()?;
    let jobs = world.ns.api::<k8s_openapi::api::batch::v1::Job>();
    await_object(&jobs, "queued", "is there", |_| true).await?;
    await_object(&world.tasks(), "queued", "is there", |_| true).await?;
    let uid = world.tasks().get("queued").await?.uid().unwrap_or_default();
    world
        .ns
        .kubectl(["delete", "task", "queued", "--wait=false"])
        .await?
        .stdout_ok()?;
    let item = world
        .item("q", "the end stands there", |item| {
            item.status
                .as_ref()
                .is_some_and(|status| status.attempts.iter().any(|attempt| attempt.uid == uid))
        })
        .await?;
    ensure!(failures(&item) == 0);
    let status = item.status.unwrap_or_default();
    ensure!(status.attempts[0].outcome == Outcome::Deleted, "{status:?}");
    await_gone(&world.tasks(), "queued").await
}
