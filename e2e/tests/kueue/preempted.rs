//! A Task that had to make room for another is cancelled: while it goes, and when it waits again.

use anyhow::ensure;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use taskgate_e2e::{PATIENCE, await_gone, eventually};

use crate::world::{CLASS, World, task};

/// The finalizer of every Job's pods.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

async fn held_by(pods: &Api<Pod>, name: &str, finalizers: &[&str]) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    pods.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// A world with a queue of one CPU, where `low` runs.
async fn low_runs(hint: &str) -> anyhow::Result<World> {
    let world = World::governed(hint, json!({"queueName": "agents"})).await?;
    let name = world.ns.name();
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
    world.cp.apply_yaml(&objects.join("\n---\n")).await?;
    world.local_queue("agents", json!({})).await?;
    world.of_class("low", "low").await?;
    world.runs("low").await?;
    Ok(world)
}

impl World {
    /// Creates a Task of a priority class of this world.
    async fn of_class(&self, name: &str, class: &str) -> anyhow::Result<()> {
        let mut made = task(name);
        made["metadata"]["labels"] = json!({(CLASS): format!("{}-{class}", self.ns)});
        self.ns.apply_yaml(&made.to_string()).await
    }

    async fn cancel(&self, name: &str) -> anyhow::Result<()> {
        let args = [
            "annotate",
            "tasks.kelos.dev",
            name,
            "taskgate.dev/cancel=not needed any more",
        ];
        self.ns.kubectl(args).await?.stdout_ok().map(drop)
    }

    async fn is_cancelled(&self, name: &str) -> anyhow::Result<()> {
        self.phase(name, "Failed").await?;
        let told = self.queued(name, "Ended").await?;
        ensure!(told["status"] == "False", "{told}");
        await_gone(&self.ns.api::<Job>(), name).await?;
        ensure!(self.kelos.agents.running(self.ns.name(), name) == 0, "{name} runs");
        Ok(())
    }
}

#[tokio::test]
async fn a_preempted_task_that_waits_is_cancelled_and_never_runs_again() -> anyhow::Result<()> {
    let world = low_runs("preempted").await?;
    world.of_class("high", "high").await?;
    let told = world.queued("low", "Preempted").await?;
    ensure!(told["status"] == "True", "{told}");
    world.runs("high").await?;
    world.cancel("low").await?;
    world.is_cancelled("low").await?;
    ensure!(
        world.kelos.agents.running(world.ns.name(), "high") == 1,
        "the other one was hit"
    );
    // Its quota is not held by anybody.
    world.succeed("high").await?;
    world.of_class("next", "low").await?;
    world.queued("next", "Admitted").await?;
    world.succeed("next").await
}

/// Its pod takes its time to go, and meanwhile Kueue takes away what the Job needs to end.
#[tokio::test]
async fn a_task_that_is_cancelled_while_kueue_evicts_it_ends() -> anyhow::Result<()> {
    let world = low_runs("evicted").await?;
    let pods = world.ns.api::<Pod>();
    let pod = pods.list(&ListParams::default()).await?.items.remove(0).name_any();
    held_by(&pods, &pod, &[TRACKING, "test.example/slow"]).await?;
    world.of_class("high", "high").await?;
    world
        .job("low", "is evicted, and its pod still goes", |job| {
            let terminating = job.status.as_ref().and_then(|status| status.terminating);
            job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) && terminating == Some(1)
        })
        .await?;
    world.cancel("low").await?;
    let failing = |job: &Job| {
        let conditions = job
            .status
            .iter()
            .filter_map(|status| status.conditions.as_ref())
            .flatten();
        conditions.into_iter().any(|known| known.type_ == "FailureTarget")
    };
    world.job("low", "is failing", failing).await?;
    eventually("Kueue takes the start away", PATIENCE, || async {
        let job = world.ns.api::<Job>().get("low").await?;
        ensure!(
            job.status.as_ref().is_some_and(|status| status.start_time.is_none()),
            "{:?}",
            job.status
        );
        Ok(())
    })
    .await?;
    held_by(&pods, &pod, &[]).await?;
    world.is_cancelled("low").await?;
    world.queued("high", "Admitted").await?;
    world.succeed("high").await
}
