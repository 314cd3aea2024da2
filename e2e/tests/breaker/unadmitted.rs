//! A Task that was created without admission, while taskgate was unavailable, although its item is tripped (kelos T1, T2). The
//! gate of this control plane is killed, so nothing else runs on it.

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use kelos_standin::CRDS;
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;
use taskgate_api::{keys, work_item::Outcome};
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, SharedGate, await_object, eventually, failures};
use tokio::sync::Mutex;

use crate::support::{governed, governed_on, limit, task_of_item};

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));
/// Locked by each test that kills that gate.
static KILLS: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn an_unadmitted_task_is_stopped_without_a_pod_and_frees_its_branch() -> anyhow::Result<()> {
    let _kills = KILLS.lock().await;
    let builder = Gate::builder().without_leader_election();
    let fixture = governed_on(&SHARED, builder, "unadmitted", limit(1)).await?;
    let gate = fixture.gate;
    fixture.created(&task_of_item("first", "epic")).await?;
    fixture.fail("first").await?;
    fixture.await_open("epic").await?;

    // Kelos is slow: the Task comes while taskgate is unavailable, its Job when it is back.
    let mut unadmitted = task_of_item("unadmitted", "epic");
    unadmitted["spec"]["branch"] = "work".into();
    let pods = fixture.pods();
    let since = pods.list(&ListParams::default()).await?.metadata.resource_version;
    let since = since.unwrap_or_default();
    let (cp, create) = (
        fixture.cp,
        ["create", "-n", fixture.ns.name(), "-f-"].map(ToOwned::to_owned),
    );
    let fixture = fixture
        .without_kelos(async |_, _| {
            gate.process().kill().await?;
            cp.kubectl_with_input(create, &unadmitted.to_string())
                .await?
                .stdout_ok()?;
            gate.process().start().await
        })
        .await?;

    let jobs = fixture.jobs();
    let job = await_object(&jobs, "unadmitted", "is failed", |job| {
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions
            .filter(|condition| condition.type_ == "Failed" && condition.status == "True")
            .any(|condition| condition.reason.as_deref() == Some("CircuitBroken"))
    })
    .await?;
    ensure!(job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)));
    let mark = job.annotations().get(keys::STOPPED).context("no mark")?;
    ensure!(mark.contains("item epic failed once (limit 1)"), "{mark}");
    let tombstone = fixture
        .await_task("unadmitted", "is a tombstone", |task| {
            task.phase() == "Failed" && task.annotations().contains_key(keys::RECORDED)
        })
        .await?;
    ensure!(
        tombstone
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == keys::ACCOUNTING)
    );
    let item = fixture.await_open("epic").await?;
    let status = item.status.clone().unwrap_or_default();
    let outcomes: Vec<_> = status.attempts.iter().map(|attempt| attempt.outcome).collect();
    ensure!(
        outcomes == [Outcome::Failed, Outcome::Stopped] && failures(&item) == 1,
        "{status:?}"
    );
    fixture
        .await_event("unadmitted", "TaskStopped", &["item epic failed once"])
        .await?;

    // The branch is free.
    let mut other = task_of_item("other", "story");
    other["spec"]["branch"] = "work".into();
    fixture.created(&other).await?;
    fixture.succeed_recorded("other").await?;
    let of_unadmitted = WatchParams::default().labels("kelos.dev/task=unadmitted").timeout(2);
    let seen: Vec<_> = pods.watch(&of_unadmitted, &since).await?.try_collect().await?;
    let ran = seen
        .iter()
        .any(|event| matches!(event, WatchEvent::Added(_) | WatchEvent::Modified(_)));
    ensure!(!ran, "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn an_active_task_is_not_stopped_because_the_limit_was_lowered() -> anyhow::Result<()> {
    let fixture = governed("lowered", limit(3)).await?;
    fixture.created(&task_of_item("first", "epic")).await?;
    fixture.created(&task_of_item("second", "epic")).await?;
    fixture.await_next_task("second", "").await?;
    fixture.fail("first").await?;
    fixture.policy(limit(1)).await?;
    fixture.await_open("epic").await?;
    eventually("the second goes on", PATIENCE, || async {
        let task = fixture.tasks().get("second").await?;
        ensure!(task.phase() == "Running", "{:?}", task.status);
        Ok(())
    })
    .await?;
    fixture.succeed_recorded("second").await?;
    fixture
        .await_work_item("epic", "is closed by the success", |item| failures(item) == 0)
        .await
        .map(drop)
}

/// It has no Job that could be failed: its runner is asked to release the Task, as for a cancellation (kelos §7).
#[tokio::test]
async fn an_unadmitted_task_of_a_worker_pool_is_stopped_too() -> anyhow::Result<()> {
    let _kills = KILLS.lock().await;
    let builder = Gate::builder().without_leader_election();
    let fixture = governed_on(&SHARED, builder, "pooled", limit(1)).await?;
    let gate = fixture.gate;
    fixture.created(&task_of_item("first", "epic")).await?;
    fixture.fail("first").await?;
    fixture.await_open("epic").await?;
    let pods = fixture.pods();
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "pool-0", "labels": {"kelos.dev/workerpool": "pool"}},
        "spec": {"containers": [{"name": "runner", "image": "runner"}]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let running = Patch::Merge(json!({"status": {"phase": "Running"}}));
    pods.patch_status("pool-0", &PatchParams::default(), &running).await?;
    let mut unadmitted = task_of_item("unadmitted", "epic");
    unadmitted["spec"] = json!({"prompt": "try", "workerPoolRef": {"name": "pool"}});
    // A Task of the same second as the last failure may have come before it.
    let opened = fixture
        .await_open("epic")
        .await?
        .status
        .and_then(|status| status.opened_at);
    let opened = opened.context("an open item says since when")?.0;
    eventually("the next second", PATIENCE, || async {
        ensure!(jiff::Timestamp::now().as_second() > opened.as_second());
        Ok(())
    })
    .await?;
    gate.process().kill().await?;
    fixture.created(&unadmitted).await?;
    await_object(&pods, "pool-0", "is assigned", |pod| {
        pod.annotations().get("kelos.dev/assigned-task").map(String::as_str) == Some("unadmitted")
    })
    .await?;
    gate.process().start().await?;
    await_object(&pods, "pool-0", "is asked to release it", |pod| {
        pod.annotations().get("kelos.dev/cancel-task").map(String::as_str) == Some("unadmitted")
    })
    .await?;
    // What the runner does then.
    let killed = json!({"metadata": {"annotations": {
        "kelos.dev/task-status": "failed", "kelos.dev/task-failure-reason": "task was cancelled",
    }}});
    pods.patch("pool-0", &PatchParams::default(), &Patch::Merge(killed))
        .await?;
    fixture
        .await_task("unadmitted", "is a tombstone", |task| {
            task.phase() == "Failed" && task.annotations().contains_key(keys::RECORDED)
        })
        .await?;
    let item = fixture.await_open("epic").await?;
    let status = item.status.clone().unwrap_or_default();
    let outcomes: Vec<_> = status.attempts.iter().map(|attempt| attempt.outcome).collect();
    ensure!(
        outcomes == [Outcome::Failed, Outcome::Stopped] && failures(&item) == 1,
        "{status:?}"
    );
    fixture.await_event("unadmitted", "TaskStopped", &["the breaker"]).await
}
