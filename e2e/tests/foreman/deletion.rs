//! Deletion is the collector's: F13, F14.

use crate::world::{CODER, World, hold, names};
use anyhow::ensure;
use foreman_standin::keys;
use foreman_standin::types::{AgenticTask, Workload};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use std::time::Duration;
use taskgate_e2e::{await_gone, never};

#[tokio::test]
async fn f14_nothing_of_foremans_holds_a_workload_up_but_its_children() -> anyhow::Result<()> {
    let world = World::start("f14").await?;
    let failed = world.failed("wl").await?;
    assert!(failed.finalizers().is_empty());
    hold(&world.tasks(), "wl-code-7", true).await?;
    world.workloads().delete("wl", &DeleteParams::foreground()).await?;
    let going = |workload: &Workload| workload.finalizers() == ["foregroundDeletion"];
    world.await_workload("wl", "waits for its child", going).await?;
    world
        .await_task("wl-code-7", "goes", |task| task.metadata.deletion_timestamp.is_some())
        .await?;
    hold(&world.tasks(), "wl-code-7", false).await?;
    await_gone(&world.workloads(), "wl").await?;
    ensure!(world.children("wl").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn f14_children_can_take_their_time() -> anyhow::Result<()> {
    let world = World::start("f14b").await?;
    let yaml = crate::world::workload("wl", CODER).replace(
        "{name: wl}",
        &format!("{{name: wl, annotations: {{{}: '3'}}}}", keys::LINGERS),
    );
    world.ns.apply_yaml(&yaml).await?;
    world.await_phase("wl", "Dispatched").await?;
    world.workloads().delete("wl", &DeleteParams::foreground()).await?;
    let began = std::time::Instant::now();
    await_gone(&world.workloads(), "wl").await?;
    ensure!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn f13_a_workload_that_goes_is_left_alone() -> anyhow::Result<()> {
    let world = World::start("f13").await?;
    let yaml = crate::world::workload("wl", CODER).replace("{name: wl}", "{name: wl, finalizers: [example.com/hold]}");
    world.ns.apply_yaml(&yaml).await?;
    world.await_phase("wl", "Dispatched").await?;
    world.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&world.tasks(), "wl-code-7").await?;
    world.touch("wl", "again").await?;
    never("it gets children", Duration::from_secs(2), async || {
        let children = world.children("wl").await?;
        Ok((!children.is_empty()).then(|| names(&children)))
    })
    .await
}

#[tokio::test]
async fn f13_before_950_it_got_new_children() -> anyhow::Result<()> {
    let world = World::start_with("f13b", |options| options.renders_terminating = true).await?;
    let yaml = crate::world::workload("wl", CODER).replace("{name: wl}", "{name: wl, finalizers: [example.com/hold]}");
    world.ns.apply_yaml(&yaml).await?;
    world.await_phase("wl", "Dispatched").await?;
    let first = world.tasks().get("wl-code-7").await?.uid();
    world.workloads().delete("wl", &DeleteParams::foreground()).await?;
    let another = |task: &AgenticTask| task.uid() != first && task.phase() == "Running";
    world.await_task("wl-code-7", "is another, and runs", another).await?;
    let workload = world.workloads().get("wl").await?;
    ensure!(workload.metadata.deletion_timestamp.is_some());
    Ok(())
}
