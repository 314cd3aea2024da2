//! Runs, when their task is deleted or their process dies: F16, F20.

use crate::support::{await_runs, start, start_with};
use anyhow::ensure;
use foreman_standin::types::AgenticTask;
use foreman_standin::{Outcome, keys};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use std::time::Duration;
use taskgate_e2e::{CODER, PATIENCE, await_gone, eventually};

/// Long enough to create a Workload anew in between.
const LIVENESS: Duration = Duration::from_secs(8);

#[tokio::test]
async fn f16_a_run_outlives_its_task_until_its_liveness_check() -> anyhow::Result<()> {
    let fixture = start_with("f16", |options| options.liveness = Duration::from_secs(2)).await?;
    fixture.workload("wl", CODER).await?;
    fixture
        .await_agentic_task("wl-code-7", "runs", |task| task.phase() == "Running")
        .await?;
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&fixture.workloads(), "wl").await?;
    let ended = |entry: usize| {
        fixture
            .foreman
            .journal()
            .executions()
            .get(entry)
            .is_some_and(|e| e.ended.is_some())
    };
    ensure!(!ended(0), "it was not checked yet");
    eventually("it has checked", PATIENCE, async || {
        ensure!(ended(0), "it still runs");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn f16_a_task_of_the_same_name_hides_that_the_old_one_is_gone() -> anyhow::Result<()> {
    let fixture = start_with("f16b", |options| options.liveness = LIVENESS).await?;
    fixture.workload("wl", CODER).await?;
    fixture
        .await_agentic_task("wl-code-7", "runs", |task| task.phase() == "Running")
        .await?;
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&fixture.workloads(), "wl").await?;
    fixture.workload("wl", CODER).await?;
    fixture
        .await_agentic_task("wl-code-7", "runs", |task| task.phase() == "Running")
        .await?;
    let journal = fixture.foreman.journal();
    let since = || {
        journal
            .executions()
            .first()
            .map(|first| Timestamp::now().duration_since(first.began))
    };
    eventually("the old run has checked", PATIENCE, async || {
        let since = since().and_then(|since| Duration::try_from(since).ok());
        ensure!(since > Some(LIVENESS + Duration::from_secs(2)), "{since:?}");
        Ok(())
    })
    .await?;
    let executions = fixture.foreman.journal().executions();
    ensure!(executions.len() == 2, "{executions:?}");
    ensure!(executions[0].collides_with(&executions[1]), "{executions:?}");
    // Its end is not the other's: the claim is another.
    let task = fixture.finish("wl-code-7", Outcome::go()).await?;
    assert_eq!(task.uid().as_ref(), Some(&executions[1].uid));
    Ok(())
}

#[tokio::test]
async fn f20_what_a_dead_agent_left_running_is_run_again() -> anyhow::Result<()> {
    let fixture = start("f20").await?;
    fixture.workload("wl", CODER).await?;
    fixture
        .await_agentic_task("wl-code-7", "runs", |task| task.phase() == "Running")
        .await?;
    let fixture = fixture.restart(async |_| Ok(())).await?;
    let recovered = |task: &AgenticTask| task.phase() == "Running" && fixture.foreman.journal().executions().len() == 2;
    fixture.await_agentic_task("wl-code-7", "runs again", recovered).await?;
    fixture.finish("wl-code-7", Outcome::go()).await?;
    fixture.await_workload_phase("wl", "Completed").await?;
    await_runs(&fixture, "wl", 1).await
}

#[tokio::test]
async fn f20_a_node_lost_three_times_fails_the_task() -> anyhow::Result<()> {
    let fixture = start("f20b").await?;
    fixture.workload("wl", CODER).await?;
    let task = fixture.finish("wl-code-7", Outcome::claim_expired()).await?;
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
