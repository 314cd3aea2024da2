//! Failures that no further run helps: A63 to A73 as far as they are about the object.

use anyhow::ensure;
use foreman_standin::Outcome;
use serde_json::json;
use taskgate_api::retry_status::FailureClass;
use taskgate_e2e::PATIENCE;

use crate::{
    steps::{reviewed, stuck, three, workload},
    world::{World, said},
};

#[tokio::test]
async fn a67_a68_what_a_coder_declares_for_people_is_not_retried_and_uses_up_nothing() -> anyhow::Result<()> {
    let world = World::start("a67", three(json!({}))).await?;
    for (name, declared) in [("design", " design-decision "), ("nofix", "NO-TECHNICAL-FIX")] {
        world.make(&workload(name)).await?;
        world.end(name, Outcome::declared(declared)).await?;
        let memory = world.reason(name, "NeedsHuman", PATIENCE).await?;
        world.stays(name).await?;
        let ledger = memory.status.and_then(|status| status.retry).unwrap_or_default();
        assert_eq!(ledger.attempt, 1);
        assert_eq!(ledger.failure.map(|failure| failure.class), Some(FailureClass::Human));
        assert_eq!(world.told_times(name, "RetryGivenUp").await?, 1, "told once");
        assert_eq!(world.runs(name), 1);
    }
    Ok(())
}

#[tokio::test]
async fn a67_a69_what_is_no_declaration_is_a_normal_retry() -> anyhow::Result<()> {
    let world = World::start("a69", three(json!({}))).await?;
    world.make(&workload("bored")).await?;
    let first = world.end("bored", Outcome::declared("BORED")).await?;
    world.next(&first).await?;
    world.make(&workload("list")).await?;
    let list = stuck().with_extra("modelExtra", json!({"escalation": ["DESIGN-DECISION"]}));
    let first = world.end("list", list).await?;
    world.next(&first).await?;
    // A reviewer's declaration is none.
    world.make(&reviewed("reviewer")).await?;
    let first = world.phase("reviewer", "Dispatched").await?;
    world.finish("reviewer-code-7", Outcome::go()).await?;
    world.finish("reviewer-verify-7", Outcome::gate_pass()).await?;
    world
        .finish("reviewer-review-7-0", Outcome::declared("DESIGN-DECISION"))
        .await?;
    world.next(&first).await?;
    Ok(())
}

#[tokio::test]
async fn a63_what_was_done_already_is_not_retried() -> anyhow::Result<()> {
    let world = World::start("resolved", three(json!({}))).await?;
    // Its review fails with what it depends on, and the Workload with it (F7).
    world.make(&reviewed("wl")).await?;
    let done = Outcome::declined("ALREADY-RESOLVED", "is on main");
    world.end("wl", done).await?;
    let memory = world.reason("wl", "SourceClosed", PATIENCE).await?;
    let failure = memory.status.and_then(|status| status.retry?.failure);
    assert_eq!(failure.map(|failure| failure.class), Some(FailureClass::Obsolete));
    world.stays("wl").await?;
    assert_eq!(world.runs("wl"), 1);
    Ok(())
}

#[tokio::test]
async fn a70_a72_a_give_up_is_told_once_and_below_the_cap_nobody_is_called() -> anyhow::Result<()> {
    let world = World::scripted("a70", three(json!({"maxAttempts": 2})), |_| stuck()).await?;
    world.make(&workload("wl")).await?;
    world.reason("wl", "MaxAttemptsReached", PATIENCE).await?;
    world.stays("wl").await?;
    let memory = world.memory("wl").await?;
    let (_, message) = said(memory.status.as_ref().expect("has said something"));
    ensure!(
        message.contains("Workload wl") && message.contains("attempt 2 of 2"),
        "{message}"
    );
    ensure!(!message.contains('@'), "{message}");
    assert_eq!(world.told_times("wl", "RetryGivenUp").await?, 1, "one for two failures");
    let metrics = world.gate.metrics().await?;
    let labels = [("kind", "Workload"), ("outcome", "max_attempts")];
    ensure!(metrics.value("taskgate_retries_total", &labels).unwrap_or_default() >= 1.0);
    Ok(())
}

#[tokio::test]
async fn a71_an_event_that_cannot_be_written_keeps_nobody_from_being_retried() -> anyhow::Result<()> {
    let world = World::start("a71", three(json!({}))).await?;
    world.mute().await?;
    let first = world.fail_new("wl").await?;
    world.next(&first).await?;
    ensure!(world.events("wl").await?.is_empty(), "nobody was kept from writing");
    Ok(())
}
