//! The end of Tasks: S26, S27, S30.

use crate::support::{StandinFixture, job};
use anyhow::ensure;
use kelos_standin::types::{Task, TaskRecord};
use kelos_standin::{Outcome, keys};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use std::time::Duration;
use taskgate_e2e::{FOREIGN_FINALIZER, PATIENCE, await_gone, await_object, eventually, never};

#[tokio::test]
async fn s26_the_ttl_runs_from_the_end() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s26").await?;
    fixture.task("now", "ttlSecondsAfterFinished: 0").await?;
    fixture.task("soon", "ttlSecondsAfterFinished: 4").await?;
    fixture.task("kept", "").await?;
    fixture.await_task_phase("now", "Running").await?;
    fixture
        .agents
        .finish(fixture.ns.name(), "now", Outcome::succeeded())
        .await?;
    await_gone(&fixture.tasks(), "now").await?;
    fixture.end("kept", Outcome::failed_at_once()).await?;
    let soon = fixture.end("soon", Outcome::failed_at_once()).await?;
    let completed = soon.current().completion_time;
    await_gone(&fixture.tasks(), "soon").await?;
    let lived = completed.map(|at| jiff::Timestamp::now().duration_since(at.0));
    assert!(lived.is_some_and(|lived| lived.as_secs() >= 4), "{lived:?}");
    assert_eq!(fixture.names().await?, ["kept"]);
    Ok(())
}

#[tokio::test]
async fn s27_deletion_frees_the_branch_and_waits_for_no_finalizer() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s27").await?;
    fixture.task("a", "branch: main").await?;
    fixture.await_task_phase("a", "Running").await?;
    fixture.set_foreign_finalizer::<Task>("a", true).await?;
    fixture.tasks().delete("a", &DeleteParams::default()).await?;
    let released = |task: &Task| task.finalizers() == [FOREIGN_FINALIZER];
    fixture
        .await_task("a", "Kelos has removed its finalizer", released)
        .await?;
    await_gone(&fixture.jobs(), "a").await?;
    assert_eq!(fixture.standin.locks().holder(":main"), None);
    never(
        "a status is written while a finalizer keeps it",
        Duration::from_secs(2),
        async || {
            let task = fixture.tasks().get("a").await?;
            Ok((task.phase() != "Running" || fixture.jobs().get_opt("a").await?.is_some()).then_some(task))
        },
    )
    .await?;
    fixture.set_foreign_finalizer::<Task>("a", false).await?;
    await_gone(&fixture.tasks(), "a").await
}

#[tokio::test]
async fn s30_usage_comes_from_the_log_alone_and_outlives_the_task() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s30").await?;
    fixture.task("told", "model: big").await?;
    let usage = Outcome::failed_at_once().with_usage("0.5", 100, 20);
    let told = fixture.end("told", usage).await?;
    let uid = told.uid().unwrap_or_default();
    let found = told.current().usage.unwrap_or_default();
    assert_eq!(
        (found.cost_usd.as_deref(), found.input_tokens),
        (Some("500m"), Some(100))
    );
    let records = fixture.ns.api::<TaskRecord>();
    let record = await_object(&records, &uid, "exists", |_| true).await?;
    assert_eq!(
        (record.spec.task_ref.name.as_str(), record.spec.phase.as_str()),
        ("told", "Failed")
    );
    assert_eq!(
        (record.spec.model.as_str(), record.spec.ttl_seconds),
        ("big", Some(30 * 24 * 3600))
    );
    assert!(record.owner_references().is_empty());
    fixture.tasks().delete("told", &DeleteParams::default()).await?;
    await_gone(&fixture.tasks(), "told").await?;
    assert_eq!(records.get(&uid).await?.uid(), record.uid());

    // The pod is gone before the end is seen, as after a cancellation.
    fixture.apply_yaml(&job("gone", "managedBy: example.com/test")).await?;
    fixture.task("gone", "").await?;
    let at = "2026-01-01T00:00:00Z";
    let conditions = ["SuccessCriteriaMet", "Complete"]
        .map(|type_| json!({"type": type_, "status": "True", "lastTransitionTime": at, "lastProbeTime": at}));
    let status = json!({"status": {"succeeded": 1, "startTime": at, "completionTime": at, "conditions": conditions}});
    let jobs = fixture.jobs();
    jobs.patch_status("gone", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let look = Patch::Merge(json!({"metadata": {"annotations": {"look": "now"}}}));
    fixture.tasks().patch("gone", &PatchParams::default(), &look).await?;
    let gone = fixture.await_task_phase("gone", "Succeeded").await?.current();
    assert_eq!((gone.usage, gone.outputs.len()), (None, 0));
    assert_eq!(records.list(&ListParams::default()).await?.items.len(), 1);
    Ok(())
}

#[tokio::test]
async fn s30_a_log_that_comes_late_is_still_read() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s30b").await?;
    fixture.task("a", "").await?;
    let silent = fixture.end("a", Outcome::succeeded()).await?;
    assert_eq!(silent.current().usage, None);
    let pods = fixture.pods();
    let log = "---KELOS_OUTPUTS_START---\ncost-usd: 2\n---KELOS_OUTPUTS_END---";
    let patch = Patch::Merge(json!({"metadata": {"annotations": {keys::AGENT_LOG: log}}}));
    pods.patch(&silent.current().pod_name, &PatchParams::default(), &patch)
        .await?;
    eventually("the usage is found within 30 s", PATIENCE, async || {
        let usage = fixture.tasks().get("a").await?.current().usage;
        ensure!(
            usage.as_ref().is_some_and(|u| u.cost_usd.as_deref() == Some("2")),
            "{usage:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_adopted_001_ends_a_cancelled_task() -> anyhow::Result<()> {
    let fixture = StandinFixture::start_with_cancellation().await?;
    fixture.task("a", "branch: main\n  queueName: agents").await?;
    let task = fixture.await_task_phase("a", "Running").await?;
    assert_eq!(task.spec.queue_name, "agents");
    let cancelled = json!({"status": {"phase": "Cancelled", "cancelledBy": "spawner:fixer", "message": "closed"}});
    let tasks = fixture.tasks();
    tasks
        .patch_status("a", &PatchParams::default(), &Patch::Merge(&cancelled))
        .await?;
    await_gone(&fixture.jobs(), "a").await?;
    let ended = |task: &Task| task.current().completion_time.is_some();
    let task = fixture.await_task("a", "has ended", ended).await?.current();
    assert_eq!(
        (task.phase.as_str(), task.cancelled_by.as_str()),
        ("Cancelled", "spawner:fixer")
    );
    assert_eq!(task.message, "closed");
    assert_eq!(fixture.standin.locks().holder(":main"), None);
    never("the Job comes back", Duration::from_secs(2), async || {
        Ok(fixture.jobs().get_opt("a").await?)
    })
    .await
}
