//! Failures that are the cluster's and not the agent's, with the evidence that kubelet and job controller leave (kelos T5).

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::work_item::{Breaker, Outcome};
use taskgate_e2e::{PATIENCE, await_object, eventually};

use crate::world::{World, breaker, by_hand, failures};

/// The Job's pod, once it is as `phase` says.
async fn pod_of(world: &World, task: &str, phase: &str) -> anyhow::Result<Pod> {
    let labelled = ListParams::default().labels(&format!("kelos.dev/task={task}"));
    eventually(format!("a pod of {task} is {phase}"), PATIENCE, || async {
        let pods = world.ns.api::<Pod>().list(&labelled).await?;
        let found = pods.items.into_iter().find(|pod| {
            let status = pod.status.as_ref();
            status.and_then(|status| status.phase.as_deref()) == Some(phase)
        });
        found.context("none")
    })
    .await
}

/// Ends the Task's last pod with `status`, and its Job as the job controller does after the last attempt.
async fn lose(world: &World, task: &str, status: &Value) -> anyhow::Result<()> {
    let pod = pod_of(world, task, "Running").await?;
    let patch = Patch::Strategic(json!({"status": status}));
    world
        .ns
        .api::<Pod>()
        .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await?;
    fail_job(world, task, "BackoffLimitExceeded").await
}

async fn fail_job(world: &World, task: &str, reason: &str) -> anyhow::Result<()> {
    let jobs = world.ns.api::<Job>();
    let job = await_object(&jobs, task, "is there", |_| true).await?;
    let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
    let mut status = json!({"conditions": [{
        "type": "FailureTarget", "status": "True", "reason": reason, "message": "as the job controller says",
        "lastProbeTime": now, "lastTransitionTime": now,
    }]});
    if job.status.is_none_or(|status| status.start_time.is_none()) {
        status["startTime"] = now.into();
    }
    let patch = Patch::Strategic(json!({"status": status}));
    jobs.patch_status(task, &PatchParams::default(), &patch).await?;
    Ok(())
}

fn disrupted(reason: &str) -> Value {
    let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
    json!({"phase": "Failed", "conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": now},
    ]})
}

#[tokio::test]
async fn what_the_cluster_did_is_recorded_and_does_not_count() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1}});
    let world = World::governed("infrastructure", spec).await?;
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    let cases = [
        (
            "evicted",
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}),
            "Evicted",
        ),
        ("drained", disrupted("EvictionByEvictionAPI"), "Evicted"),
        (
            "unpulled",
            json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": [
                {"name": "kelos-agent", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": waiting},
            ]}),
            "ImagePull",
        ),
        ("lost", disrupted("DeletionByTaintManager"), "NodeLost"),
        ("collected", disrupted("DeletionByPodGC"), "NodeLost"),
        ("preempted", disrupted("PreemptionByScheduler"), "Preempted"),
    ];
    let world = &world;
    try_join_all(cases.into_iter().map(async |(task, status, reason)| {
        world.create(&by_hand(task, Some(task)), false).await?.stdout_ok()?;
        lose(world, task, &status).await?;
        let item = world.item(task, "remembers", |item| item.status.is_some()).await?;
        let status = item.status.clone().unwrap_or_default();
        let attempt = status.attempts.first().context("no attempt")?;
        ensure!(attempt.outcome == Outcome::Infrastructure, "{task}: {attempt:?}");
        ensure!(attempt.reason.as_deref() == Some(reason), "{task}: {attempt:?}");
        ensure!(
            (failures(&item), status.infrastructure_failures) == (0, 1),
            "{task}: {status:?}"
        );
        ensure!(breaker(&item) == Some(Breaker::Closed), "{task}: {status:?}");
        anyhow::Ok(())
    }))
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_deadline_while_the_job_still_queues_is_the_clusters() -> anyhow::Result<()> {
    // No Kueue is there: the Job stays suspended, as it does while its queue is full or after Kueue evicted it.
    let spec = json!({"queueName": "agents", "failurePolicy": {"maxRetriesPerItem": 1}});
    let world = World::governed("queued", spec).await?;
    world
        .create(&by_hand("queued", Some("epic")), false)
        .await?
        .stdout_ok()?;
    let jobs = world.ns.api::<Job>();
    await_object(&jobs, "queued", "is suspended", |job| {
        job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
    })
    .await?;
    fail_job(&world, "queued", "DeadlineExceeded").await?;
    let item = world.item("epic", "remembers", |item| item.status.is_some()).await?;
    let status = item.status.clone().unwrap_or_default();
    let attempt = status.attempts.first().context("no attempt")?;
    ensure!(attempt.outcome == Outcome::Infrastructure, "{attempt:?}");
    ensure!(attempt.reason.as_deref() == Some("QueueDeadline"), "{attempt:?}");
    ensure!(failures(&item) == 0);
    Ok(())
}

#[tokio::test]
async fn failures_of_the_cluster_have_a_cap_of_their_own() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "maxInfrastructureFailures": 2}});
    let world = World::governed("cap", spec).await?;
    world.repo().issue(42);
    world.spawner("fixer", Some(0)).await?;
    let first = world.next("fixer-42", "").await?;
    let evicted = json!({"phase": "Failed", "reason": "Evicted"});
    lose(&world, "fixer-42", &evicted).await?;
    world.next("fixer-42", &first.uid().unwrap_or_default()).await?;
    lose(&world, "fixer-42", &evicted).await?;
    let item = world.open("42").await?;
    let status = item.status.clone().unwrap_or_default();
    ensure!(
        status.reason.as_deref() == Some("MaxInfrastructureFailuresExceeded"),
        "{status:?}"
    );
    ensure!(
        (failures(&item), status.infrastructure_failures) == (0, 2),
        "{status:?}"
    );
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}
