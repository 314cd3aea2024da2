//! Branches and dependencies: S24, S25.

use crate::world::{World, task};
use kelos_standin::Outcome;
use kelos_standin::types::Task;
use kube::api::DeleteParams;
use std::time::{Duration, Instant};
use taskgate_e2e::{PATIENCE, await_object, eventually};

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
    tokio::time::sleep(Duration::from_millis(1100)).await;
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
