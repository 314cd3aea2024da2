//! Deletion by the garbage collector: F13, F14.

use crate::support::{children, failed, names, start, start_with};
use anyhow::ensure;
use foreman_standin::keys;
use foreman_standin::types::{AgenticTask, Workload};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;
use std::time::Duration;
use taskgate_e2e::{CODER, FOREIGN_FINALIZER, await_gone, never};

#[tokio::test]
async fn f14_only_its_children_delay_the_deletion_of_a_workload() -> anyhow::Result<()> {
    let fixture = start("f14").await?;
    let failed = failed(&fixture, "wl").await?;
    assert!(failed.finalizers().is_empty());
    fixture.set_foreign_finalizer::<AgenticTask>("wl-code-7", true).await?;
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    let going = |workload: &Workload| workload.finalizers() == ["foregroundDeletion"];
    fixture.await_workload("wl", "waits for its child", going).await?;
    fixture
        .await_agentic_task("wl-code-7", "goes", |task| task.metadata.deletion_timestamp.is_some())
        .await?;
    fixture.set_foreign_finalizer::<AgenticTask>("wl-code-7", false).await?;
    await_gone(&fixture.workloads(), "wl").await?;
    ensure!(children(&fixture, "wl").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn f14_children_can_terminate_slowly() -> anyhow::Result<()> {
    let fixture = start("f14b").await?;
    let slow = format!("annotations: {{{}: '3'}}", keys::LINGERS);
    fixture.workload_with("wl", &slow, CODER).await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    let began = std::time::Instant::now();
    await_gone(&fixture.workloads(), "wl").await?;
    ensure!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn f13_a_workload_that_is_being_deleted_gets_no_children() -> anyhow::Result<()> {
    let fixture = start("f13").await?;
    let finalizer = format!("finalizers: [{FOREIGN_FINALIZER}]");
    fixture.workload_with("wl", &finalizer, CODER).await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&fixture.agentic_tasks(), "wl-code-7").await?;
    fixture
        .patch_metadata::<Workload>("wl", &json!({"annotations": {"touched": "again"}}))
        .await?;
    never("it gets children", Duration::from_secs(2), async || {
        let children = children(&fixture, "wl").await?;
        Ok((!children.is_empty()).then(|| names(&children)))
    })
    .await
}

#[tokio::test]
async fn f13_before_950_it_got_new_children() -> anyhow::Result<()> {
    let fixture = start_with("f13b", |options| options.renders_terminating = true).await?;
    let finalizer = format!("finalizers: [{FOREIGN_FINALIZER}]");
    fixture.workload_with("wl", &finalizer, CODER).await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    let first = fixture.agentic_tasks().get("wl-code-7").await?.uid();
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    let another = |task: &AgenticTask| task.uid() != first && task.phase() == "Running";
    fixture
        .await_agentic_task("wl-code-7", "is another, and runs", another)
        .await?;
    let workload = fixture.workloads().get("wl").await?;
    ensure!(workload.metadata.deletion_timestamp.is_some());
    Ok(())
}
