//! `taskgate status` of Tasks whose Jobs wait in a queue.

use anyhow::{Context as _, ensure};
use serde_json::json;
use taskgate_e2e::binary;
use tokio::process::Command;

use crate::support::{apply_task, governed};

#[tokio::test]
async fn it_gives_kueues_reason() -> anyhow::Result<()> {
    let fixture = governed("status", json!({"queueName": "agents"})).await?;
    fixture.queue(1).await?;
    apply_task(&fixture, "first").await?;
    fixture.await_task_phase("first", "Running").await?;
    apply_task(&fixture, "second").await?;
    fixture.await_queued("second", "WaitingForAdmission").await?;
    let output = Command::new(binary("taskgate")?)
        .args(["status", "--namespace", fixture.ns.name(), "--kubeconfig"])
        .arg(fixture.cp.kubeconfig())
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
