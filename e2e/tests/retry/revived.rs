//! Foreman runs a failed Workload again without taskgate: a user repaired it, or deleted a child.

use anyhow::ensure;
use foreman_standin::types::{AgenticTask, Workload};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::retry_status::FailureClass;
use taskgate_e2e::{attempt_number, stuck};

use crate::support::{
    await_reason, await_retry, fail_new, retry_condition, start, start_with, stays_unchanged, three, work_item_of,
    workload, workload_with,
};

const AGENT: &str = "{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Agent, metadata: {name: late}, \
    spec: {role: coder, tools: [bash]}}";

/// The Workload is `NeedsHuman`; after its repair it fails like any other one, and is retried like any other one.
#[tokio::test]
async fn a_repaired_workload_fails_for_its_own_reason() -> anyhow::Result<()> {
    let fixture = start("repaired", three(json!({}))).await?;
    let absent = json!({"coderAgentRef": {"name": "late"}});
    fixture.created(&workload_with("agent", &absent)).await?;
    fixture
        .created(&workload_with("issues", &json!({"issues": []})))
        .await?;
    for (name, reason) in [("agent", "AgentResolveFailed"), ("issues", "NoPlannerOrPipeline")] {
        let item = await_reason(&fixture, name, "NeedsHuman").await?;
        let failure = item.status.and_then(|status| status.retry?.failure);
        let found = failure.map(|failure| (failure.class, failure.reason));
        assert_eq!(found, Some((FailureClass::Human, reason.to_owned())));
    }
    fixture.apply_yaml(AGENT).await?;
    let spec = json!({"spec": {"issues": [7]}, "metadata": {"annotations": {"repaired": "yes"}}});
    for name in ["agent", "issues"] {
        let patched: Workload = fixture
            .workloads()
            .patch(name, &PatchParams::default(), &Patch::Merge(&spec))
            .await?;
        let running = fixture.end(name, stuck()).await?;
        assert_eq!(running.uid(), patched.uid(), "the same object");
        let next = fixture.await_successor(&running).await?;
        assert_eq!(attempt_number(&next), Some("2"), "{name}");
    }
    // Its issue made it another item.
    await_retry(&fixture, "Workload/issues", "has no failure", |status, retry| {
        retry.failure.is_none() && retry_condition(status).0 == "NotFailedAnyMore"
    })
    .await
    .map(drop)
}

#[tokio::test]
async fn a_tombstone_that_runs_again_is_no_tombstone() -> anyhow::Result<()> {
    let fixture = start("childless", three(json!({"maxAttempts": 1}))).await?;
    let first = fail_new(&fixture, "wl").await?;
    await_reason(&fixture, "wl", "MaxAttemptsReached").await?;
    let children = fixture.api::<AgenticTask>();
    children.delete("wl-code-7", &DeleteParams::default()).await?;
    let item = await_reason(&fixture, "wl", "NotFailedAnyMore").await?;
    ensure!(item.status.and_then(|status| status.retry?.failure).is_none());
    let status = fixture.cp.explain(fixture.ns.name(), "workload/wl").await?;
    ensure!(!status.to_string().contains("MaxAttemptsReached"), "{status:#}");
    let again = fixture.end("wl", stuck().with_reason("CloneFailed")).await?;
    assert_eq!(again.uid(), first.uid());
    // Another class has another limit.
    let next = fixture.await_successor(&again).await?;
    assert_eq!(attempt_number(&next), Some("1"));
    Ok(())
}

/// Without Foreman's webhooks a missing Agent fails the child and not the plan.
#[tokio::test]
async fn a_missing_agent_uses_no_attempt() -> anyhow::Result<()> {
    let fixture = start_with("noagent", three(json!({})), |mut options| {
        options.webhooks = false;
        options
    })
    .await?;
    fixture
        .created(&workload_with("wl", &json!({"coderAgentRef": {"name": "absent"}})))
        .await?;
    let item = await_reason(&fixture, "wl", "NeedsHuman").await?;
    let retry = item.status.and_then(|status| status.retry).unwrap_or_default();
    assert_eq!(retry.attempt, 1);
    assert_eq!(
        retry.failure.map(|failure| failure.reason).as_deref(),
        Some("AgentNotFound")
    );
    stays_unchanged(&fixture, "wl").await?;
    assert_eq!(fixture.runs("wl"), 1);
    // Of the other classes.
    fixture.created(&workload("other")).await?;
    let first = fixture.end("other", stuck()).await?;
    fixture.await_successor(&first).await?;
    work_item_of(&fixture, "other").await.map(drop)
}
