//! Runs, and what becomes of them when their task goes or their process dies: F16, F20.

use crate::world::{CODER, World};
use anyhow::ensure;
use foreman_standin::types::AgenticTask;
use foreman_standin::{Outcome, keys};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use std::time::Duration;
use taskgate_e2e::{PATIENCE, await_gone, eventually};

/// Long enough to make a Workload anew in between.
const LOOKS: Duration = Duration::from_secs(8);

#[tokio::test]
async fn f16_a_run_outlives_its_task_until_it_looks() -> anyhow::Result<()> {
    let world = World::start_with("f16", |options| options.liveness = Duration::from_secs(2)).await?;
    world.workload("wl", CODER).await?;
    world
        .await_task("wl-code-7", "runs", |task| task.phase() == "Running")
        .await?;
    world.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&world.workloads(), "wl").await?;
    let ended = |entry: usize| {
        world
            .foreman
            .journal()
            .executions()
            .get(entry)
            .is_some_and(|e| e.ended.is_some())
    };
    ensure!(!ended(0), "nobody told it");
    eventually("it has looked", PATIENCE, async || {
        ensure!(ended(0), "it still runs");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn f16_a_task_of_the_same_name_hides_that_the_old_one_is_gone() -> anyhow::Result<()> {
    let world = World::start_with("f16b", |options| options.liveness = LOOKS).await?;
    world.workload("wl", CODER).await?;
    world
        .await_task("wl-code-7", "runs", |task| task.phase() == "Running")
        .await?;
    world.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&world.workloads(), "wl").await?;
    world.workload("wl", CODER).await?;
    world
        .await_task("wl-code-7", "runs", |task| task.phase() == "Running")
        .await?;
    let journal = world.foreman.journal();
    let since = || {
        journal
            .executions()
            .first()
            .map(|first| Timestamp::now().duration_since(first.began))
    };
    eventually("the old run has looked", PATIENCE, async || {
        let since = since().and_then(|since| Duration::try_from(since).ok());
        ensure!(since > Some(LOOKS + Duration::from_secs(2)), "{since:?}");
        Ok(())
    })
    .await?;
    let executions = world.foreman.journal().executions();
    ensure!(executions.len() == 2, "{executions:?}");
    ensure!(executions[0].collides_with(&executions[1]), "{executions:?}");
    // Its end is not the other's: the claim is another.
    let task = world.finish("wl-code-7", Outcome::go()).await?;
    assert_eq!(task.uid().as_ref(), Some(&executions[1].uid));
    Ok(())
}

#[tokio::test]
async fn f20_what_a_dead_agent_left_running_is_run_again() -> anyhow::Result<()> {
    let world = World::start("f20").await?;
    world.workload("wl", CODER).await?;
    world
        .await_task("wl-code-7", "runs", |task| task.phase() == "Running")
        .await?;
    let world = world.restart(async |_| Ok(())).await?;
    let recovered = |task: &AgenticTask| task.phase() == "Running" && world.foreman.journal().executions().len() == 2;
    world.await_task("wl-code-7", "runs again", recovered).await?;
    world.finish("wl-code-7", Outcome::go()).await?;
    world.await_phase("wl", "Completed").await?;
    world.await_runs("wl", 1).await
}

#[tokio::test]
async fn f20_a_node_lost_three_times_fails_the_task() -> anyhow::Result<()> {
    let world = World::start("f20b").await?;
    world.workload("wl", CODER).await?;
    let task = world.finish("wl-code-7", Outcome::claim_expired()).await?;
    assert_eq!((task.phase(), task.verdict()), ("Failed", "INCOMPLETE"));
    assert_eq!(
        task.condition("Failed").map(|(_, reason, _)| reason),
        Some("ClaimExpiryLimitReached")
    );
    assert_eq!(task.current().failure_reason, "InfrastructureError");
    assert_eq!(
        task.annotations().get(keys::CLAIM_EXPIRIES).map(String::as_str),
        Some("2")
    );
    Ok(())
}
