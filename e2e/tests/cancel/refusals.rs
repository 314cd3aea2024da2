//! What is refused, and what is said then.

use anyhow::ensure;
use kelos_standin::{CRDS, CrdCapability, Outcome};
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{ControlPlane, PATIENCE, eventually};
use taskgate_policy::JobEnd;

use crate::world::{World, gate, state, task};

#[tokio::test]
async fn who_may_not_delete_may_not_cancel() -> anyhow::Result<()> {
    let world = World::start("rights").await?;
    world.run(&task("guarded")).await?;
    let why = format!("{}=mine", keys::CANCEL);
    let told = world.annotate("bob", "guarded", &[&why]).await?.stderr_failed()?;
    ensure!(
        told.contains("bob may not cancel this Task: that takes the right to delete it"),
        "{told}"
    );
    // Anything else bob may do.
    world.annotate("bob", "guarded", &["note=hello"]).await?.stdout_ok()?;
    let task = world.tasks().get("guarded").await?;
    ensure!(task.phase() == "Running" && !task.annotations().contains_key(keys::CANCEL));
    world
        .annotate("ann", "guarded", &[&why, &format!("{}=3600", keys::CANCEL_GRACE)])
        .await?
        .stdout_ok()?;
    let told = world
        .annotate("bob", "guarded", &[&format!("{}-", keys::CANCEL)])
        .await?
        .stderr_failed()?;
    ensure!(told.contains("bob may not cancel"), "{told}");
    Ok(())
}

#[tokio::test]
async fn who_asked_cannot_be_forged() -> anyhow::Result<()> {
    let world = World::start("forged").await?;
    world.run(&task("forged")).await?;
    for forged in [
        vec![format!("{}=user:root", keys::CANCELLED_BY)],
        vec![
            format!("{}=why", keys::CANCEL),
            format!("{}=user:root", keys::CANCELLED_BY),
        ],
        vec![format!("{}=Cancelled", keys::CANCEL_STATE)],
    ] {
        let annotations: Vec<_> = forged.iter().map(String::as_str).collect();
        let told = world.annotate("ann", "forged", &annotations).await?.stderr_failed()?;
        ensure!(told.contains("is written by taskgate alone"), "{told}");
    }
    world.cancel("forged", "why").await?;
    let task = world.await_cancelled("forged").await?;
    ensure!(task.annotations().get(keys::CANCELLED_BY).map(String::as_str) == Some("user:ann"));
    Ok(())
}

#[tokio::test]
async fn a_grace_is_a_number_of_seconds_within_a_day() -> anyhow::Result<()> {
    let world = World::start("seconds").await?;
    world.run(&task("seconds")).await?;
    for grace in ["-1", "86401", "31536000", "soon", "99999999999999999999", ""] {
        let annotations = [format!("{}=x", keys::CANCEL), format!("{}={grace}", keys::CANCEL_GRACE)];
        let told = world
            .annotate("ann", "seconds", &[&annotations[0], &annotations[1]])
            .await?
            .stderr_failed()?;
        ensure!(told.contains("0 to 86400"), "{grace}: {told}");
    }
    ensure!(world.tasks().get("seconds").await?.phase() == "Running");
    Ok(())
}

#[tokio::test]
async fn a_reason_of_a_hundred_kilobytes_is_cut() -> anyhow::Result<()> {
    let world = World::start("long").await?;
    world.run(&task("long")).await?;
    let patch = json!({"metadata": {"annotations": {keys::CANCEL: "y".repeat(100_000)}}}).to_string();
    let output = world
        .ns
        .kubectl([
            "--as",
            "ann",
            "patch",
            "tasks.kelos.dev",
            "long",
            "--type=merge",
            "-p",
            &patch,
        ])
        .await?;
    ensure!(
        output
            .warnings()
            .iter()
            .any(|warning| warning.contains("100000 characters")),
        "{:?}",
        output.warnings()
    );
    output.stdout_ok()?;
    let task = world.await_cancelled("long").await?;
    let reason = task
        .annotations()
        .get(keys::CANCEL)
        .map_or(0, |reason| reason.chars().count());
    ensure!(reason == 256, "{reason}");
    Ok(())
}

#[tokio::test]
async fn the_first_of_two_reasons_counts() -> anyhow::Result<()> {
    let world = World::start("twice").await?;
    world.run(&task("twice")).await?;
    let first = [
        format!("{}=first", keys::CANCEL),
        format!("{}=3600", keys::CANCEL_GRACE),
    ];
    world
        .annotate("ann", "twice", &[&first[0], &first[1]])
        .await?
        .stdout_ok()?;
    let second = format!("{}=second", keys::CANCEL);
    let told = world.annotate("ann", "twice", &[&second]).await?.stderr_failed()?;
    ensure!(
        told.contains("is being cancelled already, by user:ann") && told.contains("for: first"),
        "{told}"
    );
    let told = world
        .annotate("ann", "twice", &[&format!("{}=1", keys::CANCEL_GRACE)])
        .await?
        .stderr_failed()?;
    ensure!(told.contains("the grace of a cancellation cannot be changed"), "{told}");
    // The same once more is no change.
    world
        .annotate("ann", "twice", &[&first[0], &first[1]])
        .await?
        .stdout_ok()?;
    let task = world
        .await_task("twice", "is announced", |task| state(task) == "Announced")
        .await?;
    ensure!(task.annotations().get(keys::CANCEL).map(String::as_str) == Some("first"));
    Ok(())
}

#[tokio::test]
async fn what_has_ended_cannot_be_cancelled() -> anyhow::Result<()> {
    let world = World::start("ended").await?;
    world.run(&task("done")).await?;
    world.succeed("done").await?;
    let told = world
        .annotate("ann", "done", &[&format!("{}=late", keys::CANCEL)])
        .await?
        .stderr_failed()?;
    ensure!(
        told.contains("the Task has ended as Succeeded: there is nothing to cancel"),
        "{told}"
    );
    let told = world
        .annotate("ann", "nobody", &[&format!("{}=x", keys::CANCEL)])
        .await?
        .stderr_failed()?;
    ensure!(told.contains("not found"), "{told}");
    Ok(())
}

#[tokio::test]
async fn there_is_no_way_back_once_it_is_carried_out() -> anyhow::Result<()> {
    let world = World::start("noway").await?;
    world.run(&task("gone")).await?;
    world.cancel("gone", "x").await?;
    world.await_cancelled("gone").await?;
    let told = world
        .annotate("ann", "gone", &[&format!("{}-", keys::CANCEL)])
        .await?
        .stderr_failed()?;
    ensure!(told.contains("too late to withdraw"), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_new_task_made_from_a_cancelled_one_runs() -> anyhow::Result<()> {
    let world = World::start("copy").await?;
    let mut copy = task("copy");
    copy["metadata"]["annotations"] = json!({
        keys::CANCEL: "x", keys::CANCELLED_BY: "user:ann", keys::CANCEL_STATE: "Cancelled", "note": "kept",
    });
    let output = world.create(&copy, false).await?;
    ensure!(
        output
            .warnings()
            .iter()
            .any(|warning| warning.contains("a new Task is not cancelled")),
        "{:?}",
        output.warnings()
    );
    output.stdout_ok()?;
    let task = world
        .await_task("copy", "runs", |task| task.phase() == "Running")
        .await?;
    ensure!(
        task.annotations()
            .keys()
            .all(|key| !keys::CANCELLATION.contains(&key.as_str()))
    );
    ensure!(task.annotations().contains_key("note"));
    Ok(())
}

/// In a namespace that is opted out nothing is sent to admission, and the controller does nothing but remove its finalizer.
#[tokio::test]
async fn in_an_opted_out_namespace_no_request_is_carried_out() -> anyhow::Result<()> {
    let policy = json!({"failurePolicy": {"maxRetriesPerItem": 1}, "cancellationPolicy": {"onRetrigger": "Cancel"}});
    let world = World::governed("off", policy).await?;
    let mut unseen = task("unseen");
    unseen["metadata"]["annotations"] = json!({keys::ITEM: "epic"});
    world.run(&unseen).await?;
    world.await_task("unseen", "has the finalizer", held).await?;
    let label = format!("{}={}", keys::ADMISSION, keys::ADMISSION_DISABLED);
    let name = world.ns.name().to_owned();
    world
        .cp
        .kubectl(["label", "namespace", &name, &label])
        .await?
        .stdout_ok()?;
    world
        .await_task("unseen", "has no finalizer", |task| !held(task))
        .await?;
    world.cancel("unseen", "x").await?;
    world
        .agents
        .finish(world.ns.name(), "unseen", Outcome::failed_at_once())
        .await?;
    let task = world
        .await_task("unseen", "has failed", |task| task.phase() == "Failed")
        .await?;
    let version = task.resource_version();
    taskgate_e2e::never("something is written", std::time::Duration::from_secs(5), || async {
        let task = world.tasks().get("unseen").await?;
        let items = world.ns.api::<taskgate_api::WorkItem>();
        let counted = items.list(&kube::api::ListParams::default()).await?.items.len();
        Ok((task.resource_version() != version || counted > 0).then_some(task))
    })
    .await
}

fn held(task: &kelos_standin::types::Task) -> bool {
    task.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING)
}

/// What is not sent to admission may hold any annotations of taskgate's: without a stamp that fits nothing is carried out, and
/// the state is not believed.
#[tokio::test]
async fn what_was_asked_for_while_admission_was_unavailable_is_refused() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = gate(&cp).await?;
    let world = World::on(&cp, &gate, "away", CrdCapability::Base).await?;
    for name in ["asked", "forged"] {
        world.run(&task(name)).await?;
    }
    // Nothing is sent to admission for a while, and the controller does not see it.
    gate.process().kill().await?;
    let label = |value: &str| format!("{}{value}", keys::ADMISSION);
    let turn = async |label: String| {
        let args = ["label", "namespace", world.ns.name(), &label];
        cp.kubectl(args).await?.stdout_ok().map(drop)
    };
    turn(label("=disabled")).await?;
    world.cancel("asked", "x").await?;
    let forged: Vec<_> = [
        (keys::CANCEL, "x"),
        (keys::CANCEL_STATE, "Cancelling"),
        (keys::CANCELLED_BY, "spawner:fixer"),
        (keys::CANCEL_TRIGGER, "ByHand"),
        (keys::CANCEL_REQUESTED, "2026-11-21T12:00:00Z"),
        (keys::CANCEL_DEADLINE, "2026-11-21T12:00:00Z"),
    ]
    .map(|(key, value)| format!("{key}={value}"))
    .into();
    let forged: Vec<_> = forged.iter().map(String::as_str).collect();
    world.annotate("ann", "forged", &forged).await?.stdout_ok()?;
    turn(label("-")).await?;
    gate.process().start().await?;
    for name in ["asked", "forged"] {
        let task = world
            .await_task(name, "is refused", |task| state(task) == "Refused")
            .await?;
        ensure!(task.phase() == "Running");
        let told = world.events(name, "CancelRefused").await?;
        let note = told.first().and_then(|event| event.note.clone()).unwrap_or_default();
        ensure!(told.len() == 1 && note.contains("set it again"), "{told:?}");
    }
    // Asked for again it is carried out.
    let none = format!("{}-", keys::CANCEL);
    world.annotate("ann", "asked", &[&none]).await?.stdout_ok()?;
    world
        .await_task("asked", "is as before", |task| state(task).is_empty())
        .await?;
    world.cancel("asked", "again").await?;
    world.await_cancelled("asked").await.map(drop)
}

/// Kelos takes a Job of the Task's name for the Task's (kelos §6.4).
#[tokio::test]
async fn a_job_of_somebody_else_is_left_alone_until_it_goes() -> anyhow::Result<()> {
    let world = World::start("foreign").await?;
    let foreign = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "mine"},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
        }}},
    });
    world.create(&foreign, false).await?.stdout_ok()?;
    world.create(&task("mine"), false).await?.stdout_ok()?;
    world.cancel("mine", "x").await?;
    eventually("it is told what is in the way", PATIENCE, || async {
        let told = world.events("mine", "CancelBlocked").await?;
        ensure!(told.len() == 1, "{told:?}");
        Ok(())
    })
    .await?;
    let job = serde_json::to_value(world.jobs().get("mine").await?)?;
    ensure!(JobEnd::of(&job) == JobEnd::Open, "it was touched: {}", job["status"]);
    let task = world.tasks().get("mine").await?;
    ensure!(
        state(&task) == "Cancelling" && task.phase() != "Failed",
        "{}",
        task.phase()
    );
    world.ns.kubectl(["delete", "job", "mine"]).await?.stdout_ok()?;
    world.await_cancelled("mine").await.map(drop)
}
