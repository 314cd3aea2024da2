//! Jobs that were made while no replica was there: each is given to its queue late, unless its agent works already.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::batch::v1::Job;
use kelos_standin::{CRDS, types::Task};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use taskgate_api::kueue;
use taskgate_e2e::{ControlPlane, Gate, Namespace, await_object};

async fn task(ns: &Namespace, name: &str) -> anyhow::Result<String> {
    let task = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": name},
        "spec": {"type": "claude-code", "prompt": "fix", "credentials": {"type": "none"}},
    });
    let made = ns
        .api::<Task>()
        .create(&PostParams::default(), &serde_json::from_value(task)?)
        .await?;
    made.uid().context("no UID")
}

/// A Job as Kelos makes it.
fn job(name: &str, task_uid: &str) -> Value {
    let labels = json!({"kelos.dev/task": name});
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "labels": labels, "ownerReferences": [{
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "name": name, "uid": task_uid, "controller": true,
        }]},
        "spec": {"backoffLimit": 1, "template": {
            "metadata": {"labels": labels},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "kelos-agent", "image": "agent"}]},
        }},
    })
}

#[tokio::test]
async fn a_job_that_slipped_through_waits_in_its_queue_and_one_that_works_goes_on() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = Gate::builder().serve_flag("--no-leader-election").start(&cp).await?;
    let ns = cp.namespace("slipped").await?;
    let policy = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"},
        "spec": {"queueName": "agents"},
    });
    ns.apply_yaml(&policy.to_string()).await?;
    gate.process().kill().await?;

    let jobs: Api<Job> = ns.api();
    for name in ["starting", "working"] {
        let uid = task(&ns, name).await?;
        ns.apply_yaml(&job(name, &uid).to_string()).await?;
        await_object(&jobs, name, "has its pod", |job| {
            job.status.as_ref().is_some_and(|status| status.active == Some(1))
        })
        .await?;
    }
    let works =
        Patch::Merge(json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}));
    let pods = ns.api::<k8s_openapi::api::core::v1::Pod>();
    let of_working = kube::api::ListParams::default().labels("kelos.dev/task=working");
    let pod = pods.list(&of_working).await?.items.pop().context("no pod")?;
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &works)
        .await?;
    await_object(&jobs, "working", "works", |job| {
        job.status.as_ref().is_some_and(|status| status.ready == Some(1))
    })
    .await?;

    gate.process().start().await?;
    let mended = await_object(&jobs, "starting", "is queued", |job| {
        job.labels()
            .get(kueue::QUEUE_NAME)
            .is_some_and(|queue| queue == "agents")
    })
    .await?;
    ensure!(mended.spec.is_some_and(|spec| spec.suspend == Some(true)));
    await_object(&jobs, "starting", "has lost its pod", |job| {
        job.status
            .as_ref()
            .is_some_and(|status| status.active.unwrap_or(0) == 0)
    })
    .await?;
    let other = jobs.get("working").await?;
    ensure!(!other.labels().contains_key(kueue::QUEUE_NAME), "{:?}", other.labels());
    Ok(())
}
