//! A Task that came through while taskgate was away, although its item is open (kelos T1, T2). The gate of this control
//! plane is killed, so nothing else runs on it.

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kelos_standin::CRDS;
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;
use taskgate_api::{keys, work_item::Outcome};
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, Shared, await_object, eventually};
use tokio::sync::{Mutex, OnceCell};

use crate::world::{World, by_hand, failures, limit};

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));
static GATE: OnceCell<Gate> = OnceCell::const_new();
/// Held by each test that kills that gate.
static KILLS: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_task_that_slipped_in_is_stopped_without_a_pod_and_frees_its_branch() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let _kills = KILLS.lock().await;
    let gate = GATE
        .get_or_try_init(|| Gate::builder().serve_flag("--no-leader-election").start(cp))
        .await?;
    let world = World::on(cp, gate, "slipped", limit(1)).await?;
    world
        .create(&by_hand("first", Some("epic")), false)
        .await?
        .stdout_ok()?;
    world.fail("first").await?;
    world.open("epic").await?;

    // Kelos is slow: the Task comes while taskgate is away, its Job when it is back.
    let mut slipped = by_hand("slipped", Some("epic"));
    slipped["spec"]["branch"] = "work".into();
    let pods = world.ns.api::<Pod>();
    let since = pods.list(&ListParams::default()).await?.metadata.resource_version;
    let since = since.unwrap_or_default();
    let create = ["create", "-n", world.ns.name(), "-f-"].map(ToOwned::to_owned);
    let world = world
        .without_kelos(async |_, _| {
            gate.process().kill().await?;
            cp.kubectl_with_input(create, &slipped.to_string()).await?.stdout_ok()?;
            gate.process().start().await
        })
        .await?;

    let jobs = world.ns.api::<Job>();
    let job = await_object(&jobs, "slipped", "is failed", |job| {
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions
            .filter(|condition| condition.type_ == "Failed" && condition.status == "True")
            .any(|condition| condition.reason.as_deref() == Some("CircuitBroken"))
    })
    .await?;
    ensure!(job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)));
    let mark = job.annotations().get(keys::STOPPED).context("no mark")?;
    ensure!(mark.contains("item epic failed once (limit 1)"), "{mark}");
    let tombstone = await_object(&world.tasks(), "slipped", "is a tombstone", |task| {
        task.phase() == "Failed" && task.annotations().contains_key(keys::RECORDED)
    })
    .await?;
    ensure!(
        tombstone
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == keys::ACCOUNTING)
    );
    let item = world.open("epic").await?;
    let status = item.status.clone().unwrap_or_default();
    let outcomes: Vec<_> = status.attempts.iter().map(|attempt| attempt.outcome).collect();
    ensure!(
        outcomes == [Outcome::Failed, Outcome::Stopped] && failures(&item) == 1,
        "{status:?}"
    );
    world.told("slipped", "TaskStopped", &["item epic failed once"]).await?;

    // The branch is free.
    let mut other = by_hand("other", Some("story"));
    other["spec"]["branch"] = "work".into();
    world.create(&other, false).await?.stdout_ok()?;
    world.succeed("other").await?;
    let of_slipped = WatchParams::default().labels("kelos.dev/task=slipped").timeout(2);
    let seen: Vec<_> = pods.watch(&of_slipped, &since).await?.try_collect().await?;
    let ran = seen
        .iter()
        .any(|event| matches!(event, WatchEvent::Added(_) | WatchEvent::Modified(_)));
    ensure!(!ran, "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn an_active_task_is_not_stopped_because_the_limit_was_lowered() -> anyhow::Result<()> {
    let world = World::governed("lowered", limit(3)).await?;
    world
        .create(&by_hand("first", Some("epic")), false)
        .await?
        .stdout_ok()?;
    world
        .create(&by_hand("second", Some("epic")), false)
        .await?
        .stdout_ok()?;
    world.next("second", "").await?;
    world.fail("first").await?;
    world.policy(limit(1)).await?;
    world.open("epic").await?;
    eventually("the second goes on", PATIENCE, || async {
        let task = world.tasks().get("second").await?;
        ensure!(task.phase() == "Running", "{:?}", task.status);
        Ok(())
    })
    .await?;
    world.succeed("second").await?;
    world
        .item("epic", "is closed by the success", |item| failures(item) == 0)
        .await
        .map(drop)
}

/// It has no Job that could be failed: its runner is asked to let go, as for a cancellation (kelos §7).
#[tokio::test]
async fn a_task_of_a_worker_pool_that_slipped_in_is_stopped_too() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    let _kills = KILLS.lock().await;
    let gate = GATE
        .get_or_try_init(|| Gate::builder().serve_flag("--no-leader-election").start(cp))
        .await?;
    let world = World::on(cp, gate, "pooled", limit(1)).await?;
    world
        .create(&by_hand("first", Some("epic")), false)
        .await?
        .stdout_ok()?;
    world.fail("first").await?;
    world.open("epic").await?;
    let pods = world.ns.api::<Pod>();
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "pool-0", "labels": {"kelos.dev/workerpool": "pool"}},
        "spec": {"containers": [{"name": "runner", "image": "runner"}]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let running = Patch::Merge(json!({"status": {"phase": "Running"}}));
    pods.patch_status("pool-0", &PatchParams::default(), &running).await?;
    let mut slipped = by_hand("slipped", Some("epic"));
    slipped["spec"] = json!({"prompt": "try", "workerPoolRef": {"name": "pool"}});
    // A Task of the same second as the last failure may have come before it.
    let opened = world.open("epic").await?.status.and_then(|status| status.opened_at);
    let opened = opened.context("an open item says since when")?.0;
    eventually("the next second", PATIENCE, || async {
        ensure!(jiff::Timestamp::now().as_second() > opened.as_second());
        Ok(())
    })
    .await?;
    gate.process().kill().await?;
    world.create(&slipped, false).await?.stdout_ok()?;
    await_object(&pods, "pool-0", "is assigned", |pod| {
        pod.annotations().get("kelos.dev/assigned-task").map(String::as_str) == Some("slipped")
    })
    .await?;
    gate.process().start().await?;
    await_object(&pods, "pool-0", "is asked", |pod| {
        pod.annotations().get("kelos.dev/cancel-task").map(String::as_str) == Some("slipped")
    })
    .await?;
    // What the runner does then.
    let killed = json!({"metadata": {"annotations": {
        "kelos.dev/task-status": "failed", "kelos.dev/task-failure-reason": "task was cancelled",
    }}});
    pods.patch("pool-0", &PatchParams::default(), &Patch::Merge(killed))
        .await?;
    await_object(&world.tasks(), "slipped", "is a tombstone", |task| {
        task.phase() == "Failed" && task.annotations().contains_key(keys::RECORDED)
    })
    .await?;
    let item = world.open("epic").await?;
    let status = item.status.clone().unwrap_or_default();
    let outcomes: Vec<_> = status.attempts.iter().map(|attempt| attempt.outcome).collect();
    ensure!(
        outcomes == [Outcome::Failed, Outcome::Stopped] && failures(&item) == 1,
        "{status:?}"
    );
    world.told("slipped", "TaskStopped", &["the breaker"]).await
}
