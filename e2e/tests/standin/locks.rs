//! Branches and dependencies: S24, S25.

use crate::world::{World, task, write_status};
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
    let world = World::start("s24a").await?;
    let branch = "branch: main\n  workspaceRef: {name: ws}";
    world.task("a", branch).await?;
    world.await_phase("a", "Running").await?;
    world.task("b", branch).await?;
    let locked = "Waiting for branch \"main\" (locked by a)";
    world.await_task("b", locked, waits(locked)).await?;
    // Creation times are whole seconds, and only an earlier one queues before.
    let b = world.tasks().get("b").await?;
    eventually("a later second than that of b", PATIENCE, async || {
        let since = b.metadata.creation_timestamp.as_ref().map(|at| at.0);
        let now = jiff::Timestamp::now();
        ensure!(since.is_some_and(|since| now.as_second() > since.as_second()), "{now}");
        Ok(())
    })
    .await?;
    world.task("c", branch).await?;
    world.await_task("c", locked, waits(locked)).await?;
    world.end("a", Outcome::succeeded()).await?;
    let ended = Instant::now();
    world.await_phase("b", "Running").await?;
    let took = ended.elapsed();
    assert!(took < Duration::from_secs(8), "woken after {took:?}, not at once");
    let next = "Waiting for branch \"main\" (locked by b)";
    world.await_task("c", next, waits(next)).await?;
    world.tasks().delete("b", &DeleteParams::default()).await?;
    world.await_phase("c", "Running").await?;
    Ok(())
}

#[tokio::test]
async fn s24_the_lock_knows_no_namespace() -> anyhow::Result<()> {
    let other = World::start("s24b-other").await?.ns;
    let world = World::start_with("s24b", &[&other]).await?;
    world.task("a", "branch: shared").await?;
    world.await_phase("a", "Running").await?;
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
    assert_eq!(world.tasks().get("a").await?.phase(), "Running");
    Ok(())
}

#[tokio::test]
async fn s24_a_restart_forgets_the_lock_but_not_the_statuses() -> anyhow::Result<()> {
    let mut world = World::start("s24c").await?;
    world.task("a", "branch: main").await?;
    world.await_phase("a", "Running").await?;
    assert_eq!(world.standin.locks().holder(":main").as_deref(), Some("a"));
    world.restart().await?;
    assert_eq!(world.standin.locks().holder(":main"), None);
    world.task("b", "branch: main").await?;
    let locked = "Waiting for branch \"main\" (locked by a)";
    world.await_task("b", locked, waits(locked)).await?;
    eventually("a Waiting Task holds nothing", PATIENCE, async || {
        let holder = world.standin.locks().holder(":main");
        anyhow::ensure!(holder.is_none(), "{holder:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn s25_dependencies_must_exist_and_succeed() -> anyhow::Result<()> {
    let world = World::start("s25").await?;
    world.task("b", "dependsOn: [a]").await?;
    let missing = "Waiting for dependency \"a\" to be created";
    world.await_task("b", missing, waits(missing)).await?;
    world.task("a", "").await?;
    let running = "Waiting for dependency \"a\"";
    world.await_task("b", running, waits(running)).await?;
    world.end("a", Outcome::succeeded()).await?;
    world.await_phase("b", "Running").await?;
    world.task("d", "dependsOn: [b]").await?;
    world.end("b", Outcome::failed_at_once()).await?;
    let failed = world.await_phase("d", "Failed").await?.current();
    assert_eq!(failed.message, "Dependency \"b\" failed");
    assert!(failed.completion_time.is_some());
    world.task("self", "dependsOn: [self]").await?;
    let circle = world.await_phase("self", "Failed").await?.current();
    assert_eq!(circle.message, "Circular dependency detected: cycle involves \"self\"");
    Ok(())
}

#[tokio::test]
async fn s23_a_refused_job_leaves_no_trace_and_the_lock_held() -> anyhow::Result<()> {
    let world = World::start("s23").await?;
    let denial = world.deny_jobs().await?;
    world.task("a", "branch: s23").await?;
    let has_finalizer = |task: &Task| !task.finalizers().is_empty();
    let before = world.await_task("a", "is taken on", has_finalizer).await?;
    let errors = async || -> anyhow::Result<f64> {
        let page = world.standin.metrics().encode()?;
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
    let task = world.tasks().get("a").await?;
    assert_eq!((task.phase(), task.resource_version()), ("", before.resource_version()));
    assert_eq!(world.standin.locks().holder(":s23").as_deref(), Some("a"));
    let events = world.ns.api::<Event>().list(&ListParams::default()).await?;
    let about = |event: &&Event| event.reason.as_deref() != Some("BranchWithoutWorkspace");
    let told: Vec<_> = events.iter().filter(about).map(|e| e.reason.clone()).collect();
    assert!(told.is_empty(), "{told:?}");
    // Failed by hand does not free it, deletion does at once.
    world.task("b", "branch: s23").await?;
    let waits = |task: &Task| task.current().message == "Waiting for branch \"s23\" (locked by a)";
    world.await_task("b", "waits", waits).await?;
    write_status(&world.tasks(), "a", json!({"phase": "Failed"})).await?;
    never("freed by a foreign Failed", Duration::from_secs(2), async || {
        let holder = world.standin.locks().holder(":s23");
        Ok((holder.as_deref() != Some("a")).then_some(holder))
    })
    .await?;
    world.tasks().delete("a", &DeleteParams::default()).await?;
    taskgate_e2e::await_gone(&world.tasks(), "a").await?;
    denial.lift().await?;
    world.await_phase("b", "Running").await?;
    let _: Job = world.jobs().get("b").await?;
    Ok(())
}
