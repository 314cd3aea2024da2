//! `taskgate explain` of a Task in a queue; while Kueue is unavailable: see [`outages`](super::outages).

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::suggested_command;

use crate::support::{apply_task, governed};

#[tokio::test]
async fn it_gives_kueues_reason_and_the_command_that_frees_quota() -> anyhow::Result<()> {
    let fixture = governed("explain", json!({"queueName": "agents"})).await?;
    fixture.queue(1).await?;
    apply_task(&fixture, "first").await?;
    fixture.await_task_phase("first", "Running").await?;
    apply_task(&fixture, "second").await?;
    fixture.await_queued("second", "WaitingForAdmission").await?;
    let explanation = fixture.cp.explain(fixture.ns.name(), "job/second").await?;
    ensure!(
        explanation["object"] == "Task second" && explanation["state"] == "Queued",
        "{explanation:#}"
    );
    ensure!(
        explanation.to_string().contains("insufficient unused quota for cpu"),
        "Kueue's own words: {explanation:#}"
    );
    ensure!(!explanation.to_string().contains("blocker"), "{explanation:#}");
    let cancel = suggested_command(&explanation, "in LocalQueue agents: WaitingForAdmission: ")?;
    fixture.cp.paste(cancel).await?;
    fixture.await_queued("second", "Admitted").await.map(drop)
}
