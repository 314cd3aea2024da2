//! A Task that Kueue preempted is cancelled: while it is evicted, and when it waits again.

use anyhow::ensure;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use taskgate_e2e::{KelosFixture, Namespace, PATIENCE, PRIORITY_CLASS, await_gone, eventually, merged};

use crate::support::{governed, task};

/// The finalizer of every Job's pods.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

async fn set_finalizers(pods: &Api<Pod>, name: &str, finalizers: &[&str]) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    pods.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// A fixture with a queue of one CPU, where `low` runs.
async fn low_runs(hint: &str) -> anyhow::Result<KelosFixture<'static>> {
    let fixture = governed(hint, json!({"queueName": "agents"})).await?;
    let name = fixture.ns.name();
    let queue = json!({
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": name},
        "spec": {
            "namespaceSelector": {}, "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [{"coveredResources": ["cpu"], "flavors": [
                {"name": name, "resources": [{"name": "cpu", "nominalQuota": 1}]},
            ]}],
        },
    });
    let class = |class: &str, value: u32| {
        json!({
            "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "WorkloadPriorityClass", "value": value,
            "metadata": {"name": format!("{name}-{class}")},
        })
    };
    let flavor = json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": name}});
    let objects = [flavor, queue, class("low", 1), class("high", 2)].map(|object| object.to_string());
    fixture.cp.apply_yaml(&objects.join("\n---\n")).await?;
    fixture.local_queue("agents", json!({})).await?;
    apply_task_of_class(&fixture, "low", "low").await?;
    fixture.await_task_phase("low", "Running").await?;
    Ok(fixture)
}

/// Applies a Task of a priority class of this fixture.
async fn apply_task_of_class(ns: &Namespace, name: &str, class: &str) -> anyhow::Result<()> {
    let labels = json!({(PRIORITY_CLASS): format!("{ns}-{class}")});
    let task = merged(task(name), &json!({"metadata": {"labels": labels}}));
    ns.apply_yaml(&task.to_string()).await
}

async fn cancel(ns: &Namespace, name: &str) -> anyhow::Result<()> {
    let args = [
        "annotate",
        "tasks.kelos.dev",
        name,
        "taskgate.dev/cancel=not needed any more",
    ];
    ns.kubectl(args).await?.stdout_ok().map(drop)
}

async fn await_cancelled(fixture: &KelosFixture<'_>, name: &str) -> anyhow::Result<()> {
    fixture.await_task_phase(name, "Failed").await?;
    let queued = fixture.await_queued(name, "Ended").await?;
    ensure!(queued["status"] == "False", "{queued}");
    await_gone(&fixture.jobs(), name).await?;
    ensure!(fixture.agents.running(fixture.name(), name) == 0, "{name} runs");
    Ok(())
}

#[tokio::test]
async fn a_preempted_task_that_waits_is_cancelled_and_never_runs_again() -> anyhow::Result<()> {
    let fixture = low_runs("preempted").await?;
    apply_task_of_class(&fixture, "high", "high").await?;
    let told = fixture.await_queued("low", "Preempted").await?;
    ensure!(told["status"] == "True", "{told}");
    fixture.await_task_phase("high", "Running").await?;
    cancel(&fixture, "low").await?;
    await_cancelled(&fixture, "low").await?;
    ensure!(
        fixture.agents.running(fixture.ns.name(), "high") == 1,
        "the other one was hit"
    );
    // Its quota is free.
    fixture.succeed("high").await?;
    apply_task_of_class(&fixture, "next", "low").await?;
    fixture.await_queued("next", "Admitted").await?;
    fixture.succeed("next").await
}

/// Its pod terminates slowly, and meanwhile Kueue removes the start time, which the Job needs to end.
#[tokio::test]
async fn a_task_that_is_cancelled_while_kueue_evicts_it_ends() -> anyhow::Result<()> {
    let fixture = low_runs("evicted").await?;
    let pods = fixture.pods();
    let pod = pods.list(&ListParams::default()).await?.items.remove(0).name_any();
    set_finalizers(&pods, &pod, &[TRACKING, "test.example/slow"]).await?;
    apply_task_of_class(&fixture, "high", "high").await?;
    fixture
        .await_job("low", "is evicted, and its pod still goes", |job| {
            let terminating = job.status.as_ref().and_then(|status| status.terminating);
            job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) && terminating == Some(1)
        })
        .await?;
    cancel(&fixture, "low").await?;
    let failing = |job: &Job| {
        let conditions = job
            .status
            .iter()
            .filter_map(|status| status.conditions.as_ref())
            .flatten();
        conditions.into_iter().any(|known| known.type_ == "FailureTarget")
    };
    fixture.await_job("low", "is failing", failing).await?;
    eventually("Kueue removes the start time", PATIENCE, || async {
        let job = fixture.jobs().get("low").await?;
        ensure!(
            job.status.as_ref().is_some_and(|status| status.start_time.is_none()),
            "{:?}",
            job.status
        );
        Ok(())
    })
    .await?;
    set_finalizers(&pods, &pod, &[]).await?;
    await_cancelled(&fixture, "low").await?;
    fixture.await_queued("high", "Admitted").await?;
    fixture.succeed("high").await
}
