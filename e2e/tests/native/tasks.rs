//! `spec.queueName` and `status.cancelledBy` of a Task.

use anyhow::{Context as _, ensure};
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{merged, task};

use crate::support::start;

#[tokio::test]
async fn the_queue_of_a_task_leaves_its_spec_and_kelos_can_write_the_task_back() -> anyhow::Result<()> {
    let fixture = start("queue").await?;
    let file = merged(task("queued"), &json!({"spec": {"queueName": "agents"}})).to_string();
    let apply = async || {
        let args = ["apply", "-n", fixture.name(), "-f", "-"];
        fixture.cp.kubectl_with_input(args, &file).await?.stdout_ok()
    };
    apply().await?;
    let stored = fixture
        .stored("tasks.kelos.dev", "queued")
        .await?
        .context("it is stored")?;
    ensure!(stored["spec"].get("queueName").is_none(), "{stored}");
    ensure!(
        stored["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "agents",
        "{stored}"
    );
    ensure!(stored["metadata"]["annotations"][keys::QUEUE] == "agents", "{stored}");
    // Kelos adds its finalizer by a full update of the typed object, and creates the Job.
    fixture
        .await_task("queued", "has a Job", |task| {
            task.status.as_ref().is_some_and(|status| !status.job_name.is_empty())
        })
        .await?;
    // The same file again changes nothing.
    apply().await?;
    let args = ["diff", "-n", fixture.name(), "-f", "-"];
    let diff = fixture.cp.kubectl_with_input(args, &file).await?.stdout_ok()?;
    ensure!(diff.is_empty(), "{diff}");
    Ok(())
}
