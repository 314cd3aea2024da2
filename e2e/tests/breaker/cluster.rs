//! Failures caused by the cluster and not by the agent, as kubelet and job controller report them (kelos T5).

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::work_item::{Breaker, Outcome};
use taskgate_e2e::{KelosFixture, PATIENCE, await_object, breaker, eventually, failures};

use crate::support::{governed, task_of_item};

/// The Job's pod, once it is as `phase` says.
async fn pod_of(fixture: &KelosFixture<'_>, task: &str, phase: &str) -> anyhow::Result<Pod> {
    let labelled = ListParams::default().labels(&format!("kelos.dev/task={task}"));
    eventually(format!("a pod of {task} is {phase}"), PATIENCE, || async {
        let pods = fixture.pods().list(&labelled).await?;
        let found = pods.items.into_iter().find(|pod| {
            let status = pod.status.as_ref();
            status.and_then(|status| status.phase.as_deref()) == Some(phase)
        });
        found.context("none")
    })
    .await
}

/// Ends the Task's last pod with `status`, and its Job as the job controller does after the last attempt.
async fn lose(fixture: &KelosFixture<'_>, task: &str, status: &Value) -> anyhow::Result<()> {
    let pod = pod_of(fixture, task, "Running").await?;
    let patch = Patch::Strategic(json!({"status": status}));
    fixture
        .pods()
        .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await?;
    fail_job(fixture, task, "BackoffLimitExceeded").await
}

async fn fail_job(fixture: &KelosFixture<'_>, task: &str, reason: &str) -> anyhow::Result<()> {
    let jobs = fixture.jobs();
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
    let fixture = governed("infrastructure", spec).await?;
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
    let fixture = &fixture;
    try_join_all(cases.into_iter().map(async |(task, status, reason)| {
        fixture.created(&task_of_item(task, task)).await?;
        lose(fixture, task, &status).await?;
        let item = fixture
            .await_work_item(task, "has a status", |item| item.status.is_some())
            .await?;
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
    let fixture = governed("queued", spec).await?;
    fixture.created(&task_of_item("queued", "epic")).await?;
    let jobs = fixture.jobs();
    await_object(&jobs, "queued", "is suspended", |job| {
        job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
    })
    .await?;
    fail_job(&fixture, "queued", "DeadlineExceeded").await?;
    let item = fixture
        .await_work_item("epic", "has a status", |item| item.status.is_some())
        .await?;
    let status = item.status.clone().unwrap_or_default();
    let attempt = status.attempts.first().context("no attempt")?;
    ensure!(attempt.outcome == Outcome::Infrastructure, "{attempt:?}");
    ensure!(attempt.reason.as_deref() == Some("QueueDeadline"), "{attempt:?}");
    ensure!(failures(&item) == 0);
    Ok(())
}

#[tokio::test]
async fn failures_of_the_cluster_have_a_limit_of_their_own() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "maxInfrastructureFailures": 2}});
    let fixture = governed("cap", spec).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", Some(0)).await?;
    let first = fixture.await_next_task("fixer-42", "").await?;
    let evicted = json!({"phase": "Failed", "reason": "Evicted"});
    lose(&fixture, "fixer-42", &evicted).await?;
    fixture
        .await_next_task("fixer-42", &first.uid().unwrap_or_default())
        .await?;
    lose(&fixture, "fixer-42", &evicted).await?;
    let item = fixture.await_open("42").await?;
    let status = item.status.clone().unwrap_or_default();
    ensure!(
        status.reason.as_deref() == Some("MaxInfrastructureFailuresExceeded"),
        "{status:?}"
    );
    ensure!(
        (failures(&item), status.infrastructure_failures) == (0, 2),
        "{status:?}"
    );
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}
