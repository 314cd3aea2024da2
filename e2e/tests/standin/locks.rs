//! Branches and dependencies: S24, S25.

use crate::support::{StandinFixture, plane, task};
use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::events::v1::Event;
use kelos_standin::Outcome;
use kelos_standin::types::Task;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use std::time::{Duration, Instant};
use taskgate_e2e::{PATIENCE, await_object, eventually, never};

fn waits(message: &str) -> impl Fn(&Task) -> bool {
    move |task| task.phase() == "Waiting" && task.current().message == message
}

#[tokio::test]
async fn s24_one_task_per_branch_first_come_first_served() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s24a").await?;
    let branch = "branch: main\n  workspaceRef: {name: repo}";
    fixture.task("a", branch).await?;
    fixture.await_task_phase("a", "Running").await?;
    fixture.task("b", branch).await?;
    let locked = "Waiting for branch \"main\" (locked by a)";
    fixture.await_task("b", locked, waits(locked)).await?;
    // Creation times are whole seconds, and only an earlier one queues before.
    let b = fixture.tasks().get("b").await?;
    eventually("a later second than that of b", PATIENCE, async || {
        let since = b.metadata.creation_timestamp.as_ref().map(|at| at.0);
        let now = jiff::Timestamp::now();
        ensure!(since.is_some_and(|since| now.as_second() > since.as_second()), "{now}");
        Ok(())
    })
    .await?;
    fixture.task("c", branch).await?;
    fixture.await_task("c", locked, waits(locked)).await?;
    fixture.end("a", Outcome::succeeded()).await?;
    let ended = Instant::now();
    fixture.await_task_phase("b", "Running").await?;
    let took = ended.elapsed();
    assert!(took < Duration::from_secs(8), "reconciled after {took:?}, not at once");
    let next = "Waiting for branch \"main\" (locked by b)";
    fixture.await_task("c", next, waits(next)).await?;
    fixture.tasks().delete("b", &DeleteParams::default()).await?;
    fixture.await_task_phase("c", "Running").await?;
    Ok(())
}

#[tokio::test]
async fn s24_the_lock_knows_no_namespace() -> anyhow::Result<()> {
    let other = plane().await?.namespace("s24b-other").await?;
    let fixture = StandinFixture::start_with("s24b", &[&other]).await?;
    fixture.task("a", "branch: shared").await?;
    fixture.await_task_phase("a", "Running").await?;
    let tasks = other.api::<Task>();
    // An equal name shares the hold.
    other.apply_yaml(&task("a", "branch: shared")).await?;
    await_object(&tasks, "a", "Running", |task| task.phase() == "Running").await?;
    other.apply_yaml(&task("b", "branch: shared")).await?;
    let locked = "Waiting for branch \"shared\" (locked by a)";
    await_object(&tasks, "b", locked, waits(locked)).await?;
    // And the release: two Tasks on one branch.
    tasks.delete("a", &DeleteParams::default()).await?;
    await_object(&tasks, "b", "Running", |task| task.phase() == "Running").await?;
    assert_eq!(fixture.tasks().get("a").await?.phase(), "Running");
    Ok(())
}

#[tokio::test]
async fn s24_a_restart_loses_the_lock_but_not_the_statuses() -> anyhow::Result<()> {
    let mut fixture = StandinFixture::start("s24c").await?;
    fixture.task("a", "branch: main").await?;
    fixture.await_task_phase("a", "Running").await?;
    assert_eq!(fixture.standin.locks().holder(":main").as_deref(), Some("a"));
    // The process dies and another takes over.
    let next = fixture.another_standin().await?;
    std::mem::replace(&mut fixture.ns.standin, next).stop().await;
    assert_eq!(fixture.standin.locks().holder(":main"), None);
    fixture.task("b", "branch: main").await?;
    let locked = "Waiting for branch \"main\" (locked by a)";
    fixture.await_task("b", locked, waits(locked)).await?;
    eventually("a Waiting Task holds nothing", PATIENCE, async || {
        let holder = fixture.standin.locks().holder(":main");
        anyhow::ensure!(holder.is_none(), "{holder:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn s25_dependencies_must_exist_and_succeed() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s25").await?;
    fixture.task("b", "dependsOn: [a]").await?;
    let missing = "Waiting for dependency \"a\" to be created";
    fixture.await_task("b", missing, waits(missing)).await?;
    fixture.task("a", "").await?;
    let running = "Waiting for dependency \"a\"";
    fixture.await_task("b", running, waits(running)).await?;
    fixture.end("a", Outcome::succeeded()).await?;
    fixture.await_task_phase("b", "Running").await?;
    fixture.task("d", "dependsOn: [b]").await?;
    fixture.end("b", Outcome::failed_at_once()).await?;
    let failed = fixture.await_task_phase("d", "Failed").await?.current();
    assert_eq!(failed.message, "Dependency \"b\" failed");
    assert!(failed.completion_time.is_some());
    fixture.task("self", "dependsOn: [self]").await?;
    let circle = fixture.await_task_phase("self", "Failed").await?.current();
    assert_eq!(circle.message, "Circular dependency detected: cycle involves \"self\"");
    Ok(())
}

#[tokio::test]
async fn s23_a_refused_job_leaves_no_trace_and_the_lock_held() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s23").await?;
    let denial = fixture.deny_jobs().await?;
    fixture.task("a", "branch: s23").await?;
    let has_finalizer = |task: &Task| !task.finalizers().is_empty();
    let before = fixture.await_task("a", "is taken on", has_finalizer).await?;
    let errors = async || -> anyhow::Result<f64> {
        let page = fixture.standin.metrics().encode()?;
        let prefix = "kelos_reconcile_errors_total{controller=\"task\"} ";
        let line = page.lines().find_map(|line| line.strip_prefix(prefix));
        Ok(line.unwrap_or("0").parse()?)
    };
    eventually("the create is tried again and again", PATIENCE, async || {
        let errors = errors().await?;
        ensure!(errors >= 5.0, "{errors} errors");
        Ok(())
    })
    .await?;
    let task = fixture.tasks().get("a").await?;
    assert_eq!((task.phase(), task.resource_version()), ("", before.resource_version()));
    assert_eq!(fixture.standin.locks().holder(":s23").as_deref(), Some("a"));
    let events = fixture.ns.api::<Event>().list(&ListParams::default()).await?;
    let about = |event: &&Event| event.reason.as_deref() != Some("BranchWithoutWorkspace");
    let told: Vec<_> = events.iter().filter(about).map(|e| e.reason.clone()).collect();
    assert!(told.is_empty(), "{told:?}");
    // A foreign status Failed does not free it, deletion does at once.
    fixture.task("b", "branch: s23").await?;
    let waits = |task: &Task| task.current().message == "Waiting for branch \"s23\" (locked by a)";
    fixture.await_task("b", "waits", waits).await?;
    fixture.patch_status::<Task>("a", &json!({"phase": "Failed"})).await?;
    never("freed by a foreign Failed", Duration::from_secs(2), async || {
        let holder = fixture.standin.locks().holder(":s23");
        Ok((holder.as_deref() != Some("a")).then_some(holder))
    })
    .await?;
    fixture.tasks().delete("a", &DeleteParams::default()).await?;
    taskgate_e2e::await_gone(&fixture.tasks(), "a").await?;
    denial.lift().await?;
    fixture.await_task_phase("b", "Running").await?;
    let _: Job = fixture.jobs().get("b").await?;
    Ok(())
}
