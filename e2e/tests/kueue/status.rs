//! `taskgate status`: what it says of Tasks whose Jobs wait in a queue.

use anyhow::{Context as _, ensure};
use serde_json::json;
use taskgate_e2e::binary;
use tokio::process::Command;

use crate::world::World;

#[tokio::test]
async fn a_task_in_the_queue_says_kueues_reason() -> anyhow::Result<()> {
    let world = World::governed("status", json!({"queueName": "agents"})).await?;
    world.queue(1).await?;
    world.task("first").await?;
    world.runs("first").await?;
    world.task("second").await?;
    world.queued("second", "WaitingForAdmission").await?;
    let output = Command::new(binary("taskgate")?)
        .args(["status", "--namespace", world.ns.name(), "--kubeconfig"])
        .arg(world.cp.kubeconfig())
        .output()
        .await?;
    ensure!(
        output.status.code() == Some(0) && output.stderr.is_empty(),
        "{output:?}"
    );
    let told = String::from_utf8(output.stdout)?;
    ensure!(told.contains("Tasks: 2 governed, 1 Queued, 1 Running\n"), "{told}");
    let line = told.lines().find(|line| line.starts_with("second "));
    let line = line.context("no such line")?;
    ensure!(
        line.contains(" Queued ") && line.contains("TaskPolicy/agents"),
        "{line}"
    );
    ensure!(line.contains("WaitingForAdmission: "), "{line}");
    ensure!(
        line.contains("insufficient unused quota for cpu"),
        "Kueue's own words: {line}"
    );
    Ok(())
}
