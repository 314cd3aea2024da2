//! Kueue evicts a Job while its Task is being cancelled. While a Job is evicted, Kueue removes its start time as well, and the
//! API server refuses to end a Job without one. Here the test plays Kueue, so that it happens each time; in suite `kueue` Kueue
//! itself does it.

use anyhow::ensure;
use k8s_openapi::api::{
    batch::v1::{Job, JobCondition},
    core::v1::Pod,
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_e2e::await_object;

use crate::support::{await_cancelled, cancel, governed, pods_created, task};

/// The finalizer of every Job's pods.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

async fn set_finalizers(pods: &Api<Pod>, name: &str, finalizers: &[&str]) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    pods.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn suspend(jobs: &Api<Job>, name: &str, suspend: bool) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
    jobs.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// A field of the Job's status, or null.
fn status(job: &Job, field: &str) -> Value {
    let status = serde_json::to_value(&job.status).unwrap_or_default();
    status[field].clone()
}

#[tokio::test]
async fn a_job_whose_start_time_is_removed_ends_nevertheless() -> anyhow::Result<()> {
    let fixture = governed("evicted", json!({"queueName": "agents"})).await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.created(&task("evicted")).await?;
    let jobs = fixture.jobs();
    await_object(&jobs, "evicted", "is there", |_| true).await?;
    suspend(&jobs, "evicted", false).await?;
    fixture.await_task_phase("evicted", "Running").await?;
    // A pod that takes its time to go.
    let pods = fixture.pods();
    let pod = pods.list(&ListParams::default()).await?.items.remove(0).name_any();
    set_finalizers(&pods, &pod, &[TRACKING, "test.example/slow"]).await?;
    suspend(&jobs, "evicted", true).await?;
    await_object(&jobs, "evicted", "waits for its pod to go", |job| {
        status(job, "terminating") == 1
    })
    .await?;

    cancel(&fixture, "evicted", "the queue has it").await?;
    await_object(&jobs, "evicted", "is failing", |job| {
        let conditions = job
            .status
            .iter()
            .filter_map(|status| status.conditions.as_ref())
            .flatten();
        let ours =
            |known: &JobCondition| known.type_ == "FailureTarget" && known.reason.as_deref() == Some("TaskCancelled");
        conditions.into_iter().any(ours)
    })
    .await?;
    let taken = Patch::Merge(json!({"status": {"startTime": null}}));
    let job = jobs.patch_status("evicted", &PatchParams::default(), &taken).await?;
    ensure!(status(&job, "startTime").is_null(), "{:?}", job.status);
    set_finalizers(&pods, &pod, &[]).await?;

    let task = await_cancelled(&fixture, "evicted").await?;
    ensure!(task.phase() == "Failed", "{}", task.phase());
    ensure!(
        pods_created(&fixture, mark, "evicted").await? == 1,
        "a second agent was started"
    );
    Ok(())
}
