//! `taskgate explain`: what it says of a Task that waits for the branch of another.

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::told_command;

use crate::world::{World, state, task_with};

#[tokio::test]
async fn a_task_that_waits_for_its_branch_is_told_who_holds_it_and_how_it_gets_it() -> anyhow::Result<()> {
    let world = World::start("explain").await?;
    // Kelos' locks know no namespaces, and other tests have branches too.
    let branch = json!({"branch": world.ns.name()});
    world.run(&task_with("holder", &branch)).await?;
    world.create(&task_with("waiter", &branch), false).await?.stdout_ok()?;
    world
        .await_task("waiter", "waits", |task| task.phase() == "Waiting")
        .await?;
    let story = world.cp.explain(world.ns.name(), "waiter").await?;
    ensure!(story["state"] == "Waiting", "{story:#}");
    let holder = format!("for branch {}, which Task holder holds; that one is Running", world.ns);
    world.cp.paste(told_command(&story, &holder)?).await?;
    world.await_cancelled("holder").await?;
    world
        .await_task("waiter", "runs", |task| task.phase() == "Running")
        .await?;

    let cancelled = world.cp.explain(world.ns.name(), "task/holder").await?;
    ensure!(cancelled["state"] == "Cancelled", "{cancelled:#}");
    let later = ["--reason", "stale", "--grace", "3600"].join(" ");
    world
        .cp
        .paste(&format!("taskgate cancel waiter -n {} {later}", world.ns))
        .await?;
    let story = world.cp.explain(world.ns.name(), "waiter").await?;
    world
        .cp
        .paste(told_command(&story, "for its end: it will be cancelled at ")?)
        .await?;
    world
        .await_task("waiter", "is spared", |task| state(task).is_empty())
        .await
        .map(drop)
}
