//! `taskgate explain`: what it says of a Task in a queue. What it says when Kueue is away is in [`outages`](super::outages).

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::told_command;

use crate::world::World;

#[tokio::test]
async fn a_task_in_the_queue_says_kueues_reason_and_what_makes_room() -> anyhow::Result<()> {
    let world = World::governed("explain", json!({"queueName": "agents"})).await?;
    world.queue(1).await?;
    world.task("first").await?;
    world.runs("first").await?;
    world.task("second").await?;
    world.queued("second", "WaitingForAdmission").await?;
    let story = world.cp.explain(world.ns.name(), "job/second").await?;
    ensure!(
        story["object"] == "Task second" && story["state"] == "Queued",
        "{story:#}"
    );
    ensure!(
        story.to_string().contains("insufficient unused quota for cpu"),
        "Kueue's own words: {story:#}"
    );
    ensure!(!story.to_string().contains("blocker"), "{story:#}");
    let cancel = told_command(&story, "in LocalQueue agents: WaitingForAdmission: ")?;
    world.cp.paste(cancel).await?;
    world.queued("second", "Admitted").await.map(drop)
}
