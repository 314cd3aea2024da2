//! Kueue takes a Job's quota away while its Task is being cancelled. As long as it has a Job evicted it takes the Job's start
//! away as well, and the job controller is refused to end a Job without one, for ever. Here the test plays Kueue, so that it
//! happens each time; in suite `kueue` it does so itself.

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

use crate::world::{World, task};

/// The finalizer of every Job's pods.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

async fn held_by(pods: &Api<Pod>, name: &str, finalizers: &[&str]) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    pods.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn suspend(jobs: &Api<Job>, name: &str, suspend: bool) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
    jobs.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// What the Job's status says, null if nothing.
fn status(job: &Job, field: &str) -> Value {
    let status = serde_json::to_value(&job.status).unwrap_or_default();
    status[field].clone()
}

#[tokio::test]
async fn a_job_whose_start_is_taken_away_ends_nevertheless() -> anyhow::Result<()> {
    let world = World::governed("evicted", json!({"queueName": "agents"})).await?;
    let mark = world.cp.audit().mark()?;
    world.create(&task("evicted"), false).await?.stdout_ok()?;
    let jobs = world.jobs();
    await_object(&jobs, "evicted", "is there", |_| true).await?;
    suspend(&jobs, "evicted", false).await?;
    world
        .await_task("evicted", "runs", |task| task.phase() == "Running")
        .await?;
    // A pod that takes its time to go.
    let pods = world.pods();
    let pod = pods.list(&ListParams::default()).await?.items.remove(0).name_any();
    held_by(&pods, &pod, &[TRACKING, "test.example/slow"]).await?;
    suspend(&jobs, "evicted", true).await?;
    await_object(&jobs, "evicted", "waits for its pod to go", |job| {
        status(job, "terminating") == 1
    })
    .await?;

    world.cancel("evicted", "the queue has it").await?;
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
    held_by(&pods, &pod, &[]).await?;

    let task = world.await_cancelled("evicted").await?;
    ensure!(task.phase() == "Failed", "{}", task.phase());
    ensure!(
        world.pods_made(mark, "evicted").await? == 1,
        "a second agent was started"
    );
    Ok(())
}
