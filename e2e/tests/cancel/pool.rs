//! Tasks of a worker pool have no Job: Kelos' own annotations cancel them (kelos §7).

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_e2e::await_object;

use crate::support::{await_cancelled, cancel, start};

fn pooled(name: &str) -> Value {
    json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": name},
        "spec": {"prompt": "try", "workerPoolRef": {"name": "pool"}},
    })
}

/// A runner pod, which the test marks as running.
async fn runner(pods: &Api<Pod>) -> anyhow::Result<()> {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "pool-0", "labels": {"kelos.dev/workerpool": "pool"}},
        "spec": {"containers": [{"name": "runner", "image": "runner"}]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let running = Patch::Merge(json!({"status": {"phase": "Running"}}));
    pods.patch_status("pool-0", &PatchParams::default(), &running).await?;
    Ok(())
}

#[tokio::test]
async fn the_runner_is_asked_to_release_the_task() -> anyhow::Result<()> {
    let fixture = start("pool").await?;
    runner(&fixture.pods()).await?;
    fixture.created(&pooled("assigned")).await?;
    fixture
        .await_task("assigned", "is assigned", |task| task.current().pod_name == "pool-0")
        .await?;
    cancel(&fixture, "assigned", "x").await?;
    await_object(&fixture.pods(), "pool-0", "is asked", |pod| {
        pod.annotations().get("kelos.dev/cancel-task").map(String::as_str) == Some("assigned")
    })
    .await?;
    // What the runner does then.
    let killed = json!({"metadata": {"annotations": {
        "kelos.dev/task-status": "failed", "kelos.dev/task-failure-reason": "task was cancelled",
    }}});
    fixture
        .pods()
        .patch("pool-0", &PatchParams::default(), &Patch::Merge(killed))
        .await?;
    let task = await_cancelled(&fixture, "assigned").await?;
    ensure!(task.phase() == "Failed");
    let pod = await_object(&fixture.pods(), "pool-0", "is free", |pod| {
        !pod.annotations().contains_key("kelos.dev/assigned-task")
    })
    .await?;
    ensure!(!pod.annotations().contains_key("kelos.dev/cancel-task"));
    Ok(())
}

#[tokio::test]
async fn a_task_without_a_runner_never_gets_one() -> anyhow::Result<()> {
    let fixture = start("unassigned").await?;
    fixture.created(&pooled("idle")).await?;
    fixture
        .await_task("idle", "is known to Kelos", |task| !task.finalizers().is_empty())
        .await?;
    cancel(&fixture, "idle", "x").await?;
    let task = await_cancelled(&fixture, "idle").await?;
    ensure!(task.phase() == "Failed");
    task.current().completion_time.context("an end")?;
    runner(&fixture.pods()).await?;
    taskgate_e2e::never("the runner is assigned", std::time::Duration::from_secs(6), || async {
        let pod = fixture.pods().get("pool-0").await?;
        Ok(pod.annotations().get("kelos.dev/assigned-task").cloned())
    })
    .await
}
