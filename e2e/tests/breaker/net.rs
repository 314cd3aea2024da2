//! The net below the tombstone: Tasks that somebody else makes.

use anyhow::ensure;
use futures::future::join_all;
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::await_object;

use crate::world::{World, by_hand, failures, limit};

#[tokio::test]
async fn by_hand_is_denied_with_the_reason_and_the_way_out() -> anyhow::Result<()> {
    let world = World::governed("hand", limit(1)).await?;
    world
        .create(&by_hand("first", Some("epic")), false)
        .await?
        .stdout_ok()?;
    world.fail("first").await?;
    let item = world.open("epic").await?;
    let told = world
        .create(&by_hand("second", Some("epic")), false)
        .await?
        .stderr_failed()?;
    for part in [
        "item epic failed once (limit 1)",
        "cost $0.25",
        &format!("delete wi {}", item.name_any()),
    ] {
        ensure!(told.contains(part), "{told}");
    }
    world
        .create(&by_hand("other", Some("story")), true)
        .await?
        .stdout_ok()
        .map(drop)
}

#[tokio::test]
async fn creates_that_race_at_the_limit_admit_no_more_than_it() -> anyhow::Result<()> {
    let world = World::governed("race", limit(2)).await?;
    let tasks: Vec<_> = (0..8)
        .map(|index| by_hand(&format!("race-{index}"), Some("raced")))
        .collect();
    let outputs = join_all(tasks.iter().map(|task| world.create(task, false))).await;
    let passed = outputs
        .into_iter()
        .flatten()
        .filter_map(|output| output.stdout_ok().ok())
        .count();
    ensure!(passed == 2, "{passed} Tasks passed");
    Ok(())
}

#[tokio::test]
async fn observe_changes_nothing_and_remembers() -> anyhow::Result<()> {
    let spec = json!({"mode": "Observe", "failurePolicy": {"maxRetriesPerItem": 1}});
    let world = World::governed("observe", spec).await?;
    world
        .create(&by_hand("first", Some("epic")), false)
        .await?
        .stdout_ok()?;
    world.fail("first").await?;
    world.item("epic", "remembers", |item| failures(item) == 1).await?;
    let task = world.tasks().get("first").await?;
    ensure!(task.finalizers().iter().all(|finalizer| finalizer != keys::ACCOUNTING));
    ensure!(!task.annotations().contains_key(keys::RECORDED));
    world
        .create(&by_hand("second", Some("epic")), false)
        .await?
        .stdout_ok()
        .map(drop)
}

#[tokio::test]
async fn warn_warns() -> anyhow::Result<()> {
    let world = World::governed("warn", limit(1)).await?;
    world
        .create(&by_hand("first", Some("epic")), false)
        .await?
        .stdout_ok()?;
    world.fail("first").await?;
    world.open("epic").await?;
    world
        .policy(json!({"mode": "Warn", "failurePolicy": {"maxRetriesPerItem": 1}}))
        .await?;
    taskgate_e2e::eventually("the creator is warned", taskgate_e2e::PATIENCE, || async {
        let output = world.create(&by_hand("second", Some("epic")), true).await?;
        let warned = output
            .warnings()
            .iter()
            .any(|warning| warning.contains("would deny: item epic"));
        ensure!(warned, "{:?}", output.warnings());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_task_that_was_there_before_the_policy_is_adopted() -> anyhow::Result<()> {
    let world = World::governed("adopt", json!({})).await?;
    world.create(&by_hand("old", Some("epic")), false).await?.stdout_ok()?;
    world.policy(limit(1)).await?;
    await_object(&world.tasks(), "old", "is adopted", |task| {
        task.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING)
    })
    .await?;
    world.fail("old").await?;
    world.open("epic").await.map(drop)
}

#[tokio::test]
async fn a_dry_run_takes_no_place() -> anyhow::Result<()> {
    let world = World::governed("dry", limit(1)).await?;
    for _ in 0..3 {
        world.create(&by_hand("first", Some("epic")), true).await?.stdout_ok()?;
        world
            .create(&by_hand("second", Some("epic")), true)
            .await?
            .stdout_ok()?;
    }
    world
        .create(&by_hand("first", Some("epic")), false)
        .await?
        .stdout_ok()
        .map(drop)
}

#[tokio::test]
async fn the_metrics_of_the_proposal_are_there() -> anyhow::Result<()> {
    let world = World::governed("metrics", limit(1)).await?;
    world.repo().issue(42);
    world.spawner("fixer", None).await?;
    world.fail("fixer-42").await?;
    world.open("42").await?;
    let metrics = world.gate.metrics().await?;
    let labels = [("namespace", world.ns.name()), ("spawner", "fixer")];
    let skipped = metrics.value("kelos_spawner_items_circuit_broken_total", &labels);
    ensure!(skipped == Some(1.0), "{skipped:?}");
    Ok(())
}
