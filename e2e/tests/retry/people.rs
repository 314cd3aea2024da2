//! Failures that a further run does not help, and how they are reported.

use std::time::Duration;

use anyhow::ensure;
use foreman_standin::Outcome;
use serde_json::json;
use taskgate_api::retry_status::FailureClass;
use taskgate_e2e::{Namespace, stuck};

use crate::support::{
    await_reason, deny, fail_new, retry_condition, reviewed, start, start_with, stays_unchanged, three, work_item_of,
    workload,
};

/// Keeps all clients from writing Events in the namespace.
async fn deny_events(ns: &Namespace) -> anyhow::Result<()> {
    let rule = json!({
        "apiGroups": ["events.k8s.io", ""], "apiVersions": ["*"], "operations": ["*"], "resources": ["events"],
    });
    let probe = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "probe", "namespace": ns.name()},
        "involvedObject": {"namespace": ns.name()},
    });
    let name = format!("{ns}-events");
    deny(ns, &name, rule, ("false", "no events"), &probe).await
}

#[tokio::test]
async fn a_coders_declaration_for_humans_is_not_retried_and_uses_no_attempt() -> anyhow::Result<()> {
    let fixture = start("a67", three(json!({}))).await?;
    for (name, declared) in [("design", " design-decision "), ("nofix", "NO-TECHNICAL-FIX")] {
        fixture.created(&workload(name)).await?;
        fixture.end(name, Outcome::declared(declared)).await?;
        let item = await_reason(&fixture, name, "NeedsHuman").await?;
        stays_unchanged(&fixture, name).await?;
        let retry = item.status.and_then(|status| status.retry).unwrap_or_default();
        assert_eq!(retry.attempt, 1);
        assert_eq!(retry.failure.map(|failure| failure.class), Some(FailureClass::Human));
        assert_eq!(
            fixture.events_with_reason(name, "RetryGivenUp").await?.len(),
            1,
            "one Event"
        );
        assert_eq!(fixture.runs(name), 1);
    }
    Ok(())
}

#[tokio::test]
async fn anything_else_is_a_normal_retry() -> anyhow::Result<()> {
    let fixture = start("a69", three(json!({}))).await?;
    fixture.created(&workload("bored")).await?;
    let first = fixture.end("bored", Outcome::declared("BORED")).await?;
    fixture.await_successor(&first).await?;
    fixture.created(&workload("list")).await?;
    let list = stuck().with_extra("modelExtra", json!({"escalation": ["DESIGN-DECISION"]}));
    let first = fixture.end("list", list).await?;
    fixture.await_successor(&first).await?;
    // A reviewer's declaration is none.
    fixture.created(&reviewed("reviewer")).await?;
    let first = fixture.await_workload_phase("reviewer", "Dispatched").await?;
    fixture.finish("reviewer-code-7", Outcome::go()).await?;
    fixture.finish("reviewer-verify-7", Outcome::gate_pass()).await?;
    fixture
        .finish("reviewer-review-7-0", Outcome::declared("DESIGN-DECISION"))
        .await?;
    fixture.await_successor(&first).await?;
    Ok(())
}

#[tokio::test]
async fn work_that_was_done_already_is_not_retried() -> anyhow::Result<()> {
    let fixture = start("resolved", three(json!({}))).await?;
    // Its review fails with what it depends on, and the Workload with it (F7).
    fixture.created(&reviewed("wl")).await?;
    let done = Outcome::declined("ALREADY-RESOLVED", "is on main");
    fixture.end("wl", done).await?;
    let item = await_reason(&fixture, "wl", "SourceClosed").await?;
    let failure = item.status.and_then(|status| status.retry?.failure);
    assert_eq!(failure.map(|failure| failure.class), Some(FailureClass::Obsolete));
    stays_unchanged(&fixture, "wl").await?;
    assert_eq!(fixture.runs("wl"), 1);
    Ok(())
}

#[tokio::test]
async fn giving_up_is_reported_once_and_mentions_no_user_below_the_limit() -> anyhow::Result<()> {
    let fixture = start_with("a70", three(json!({"maxAttempts": 2})), |options| {
        options.scripted(|_| Some((Duration::from_millis(100), stuck())))
    })
    .await?;
    fixture.created(&workload("wl")).await?;
    await_reason(&fixture, "wl", "MaxAttemptsReached").await?;
    stays_unchanged(&fixture, "wl").await?;
    let item = work_item_of(&fixture, "wl").await?;
    let (_, message) = retry_condition(item.status.as_ref().expect("has a status"));
    ensure!(
        message.contains("Workload wl") && message.contains("attempt 2 of 2"),
        "{message}"
    );
    ensure!(!message.contains('@'), "{message}");
    assert_eq!(
        fixture.events_with_reason("wl", "RetryGivenUp").await?.len(),
        1,
        "one for two failures"
    );
    let metrics = fixture.gate.metrics().await?;
    let labels = [("kind", "Workload"), ("outcome", "max_attempts")];
    ensure!(metrics.value("taskgate_retries_total", &labels).unwrap_or_default() >= 1.0);
    Ok(())
}

#[tokio::test]
async fn an_event_that_cannot_be_written_blocks_no_retry() -> anyhow::Result<()> {
    let fixture = start("a71", three(json!({}))).await?;
    deny_events(&fixture).await?;
    let first = fail_new(&fixture, "wl").await?;
    fixture.await_successor(&first).await?;
    ensure!(fixture.events("wl").await?.is_empty(), "Events were not denied");
    Ok(())
}
