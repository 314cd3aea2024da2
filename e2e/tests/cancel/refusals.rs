//! Cancellations that are refused, and the messages.

use anyhow::ensure;
use kelos_standin::{CRDS, CrdCapability, Outcome};
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{ControlPlane, PATIENCE, eventually};
use taskgate_policy::JobEnd;

use crate::support::{
    annotate, await_cancelled, cancel, cancel_state, gate, governed, start, start_on, task, task_events,
};

#[tokio::test]
async fn a_user_who_may_not_delete_may_not_cancel() -> anyhow::Result<()> {
    let fixture = start("rights").await?;
    fixture.run(&task("guarded")).await?;
    let why = format!("{}=mine", keys::CANCEL);
    let told = annotate(&fixture, "bob", "guarded", &[&why]).await?.stderr_failed()?;
    ensure!(
        told.contains("bob may not cancel this Task: that takes the right to delete it"),
        "{told}"
    );
    // Anything else bob may do.
    annotate(&fixture, "bob", "guarded", &["note=hello"])
        .await?
        .stdout_ok()?;
    let task = fixture.tasks().get("guarded").await?;
    ensure!(task.phase() == "Running" && !task.annotations().contains_key(keys::CANCEL));
    annotate(
        &fixture,
        "ann",
        "guarded",
        &[&why, &format!("{}=3600", keys::CANCEL_GRACE)],
    )
    .await?
    .stdout_ok()?;
    let told = annotate(&fixture, "bob", "guarded", &[&format!("{}-", keys::CANCEL)])
        .await?
        .stderr_failed()?;
    ensure!(told.contains("bob may not cancel"), "{told}");
    Ok(())
}

#[tokio::test]
async fn who_asked_cannot_be_forged() -> anyhow::Result<()> {
    let fixture = start("forged").await?;
    fixture.run(&task("forged")).await?;
    for forged in [
        vec![format!("{}=user:root", keys::CANCELLED_BY)],
        vec![
            format!("{}=why", keys::CANCEL),
            format!("{}=user:root", keys::CANCELLED_BY),
        ],
        vec![format!("{}=Cancelled", keys::CANCEL_STATE)],
    ] {
        let annotations: Vec<_> = forged.iter().map(String::as_str).collect();
        let told = annotate(&fixture, "ann", "forged", &annotations)
            .await?
            .stderr_failed()?;
        ensure!(told.contains("is written by taskgate alone"), "{told}");
    }
    cancel(&fixture, "forged", "why").await?;
    let task = await_cancelled(&fixture, "forged").await?;
    ensure!(task.annotations().get(keys::CANCELLED_BY).map(String::as_str) == Some("user:ann"));
    Ok(())
}

#[tokio::test]
async fn a_grace_is_a_number_of_seconds_within_a_day() -> anyhow::Result<()> {
    let fixture = start("seconds").await?;
    fixture.run(&task("seconds")).await?;
    for grace in ["-1", "86401", "31536000", "soon", "99999999999999999999", ""] {
        let annotations = [format!("{}=x", keys::CANCEL), format!("{}={grace}", keys::CANCEL_GRACE)];
        let told = annotate(&fixture, "ann", "seconds", &[&annotations[0], &annotations[1]])
            .await?
            .stderr_failed()?;
        ensure!(told.contains("0 to 86400"), "{grace}: {told}");
    }
    ensure!(fixture.tasks().get("seconds").await?.phase() == "Running");
    Ok(())
}

#[tokio::test]
async fn a_reason_of_a_hundred_kilobytes_is_cut() -> anyhow::Result<()> {
    let fixture = start("long").await?;
    fixture.run(&task("long")).await?;
    let patch = json!({"metadata": {"annotations": {keys::CANCEL: "y".repeat(100_000)}}}).to_string();
    let output = fixture
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
    let task = await_cancelled(&fixture, "long").await?;
    let reason = task
        .annotations()
        .get(keys::CANCEL)
        .map_or(0, |reason| reason.chars().count());
    ensure!(reason == 256, "{reason}");
    Ok(())
}

#[tokio::test]
async fn the_first_of_two_reasons_counts() -> anyhow::Result<()> {
    let fixture = start("twice").await?;
    fixture.run(&task("twice")).await?;
    let first = [
        format!("{}=first", keys::CANCEL),
        format!("{}=3600", keys::CANCEL_GRACE),
    ];
    annotate(&fixture, "ann", "twice", &[&first[0], &first[1]])
        .await?
        .stdout_ok()?;
    let second = format!("{}=second", keys::CANCEL);
    let told = annotate(&fixture, "ann", "twice", &[&second]).await?.stderr_failed()?;
    ensure!(
        told.contains("is being cancelled already, by user:ann") && told.contains("for: first"),
        "{told}"
    );
    let told = annotate(&fixture, "ann", "twice", &[&format!("{}=1", keys::CANCEL_GRACE)])
        .await?
        .stderr_failed()?;
    ensure!(told.contains("the grace of a cancellation cannot be changed"), "{told}");
    // The same once more is no change.
    annotate(&fixture, "ann", "twice", &[&first[0], &first[1]])
        .await?
        .stdout_ok()?;
    let task = fixture
        .await_task("twice", "is announced", |task| cancel_state(task) == "Announced")
        .await?;
    ensure!(task.annotations().get(keys::CANCEL).map(String::as_str) == Some("first"));
    Ok(())
}

#[tokio::test]
async fn a_task_that_has_ended_cannot_be_cancelled() -> anyhow::Result<()> {
    let fixture = start("ended").await?;
    fixture.run(&task("done")).await?;
    fixture.succeed("done").await?;
    let told = annotate(&fixture, "ann", "done", &[&format!("{}=late", keys::CANCEL)])
        .await?
        .stderr_failed()?;
    ensure!(
        told.contains("the Task has ended as Succeeded: there is nothing to cancel"),
        "{told}"
    );
    let told = annotate(&fixture, "ann", "missing", &[&format!("{}=x", keys::CANCEL)])
        .await?
        .stderr_failed()?;
    ensure!(told.contains("not found"), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_completed_cancellation_cannot_be_withdrawn() -> anyhow::Result<()> {
    let fixture = start("noway").await?;
    fixture.run(&task("gone")).await?;
    cancel(&fixture, "gone", "x").await?;
    await_cancelled(&fixture, "gone").await?;
    let told = annotate(&fixture, "ann", "gone", &[&format!("{}-", keys::CANCEL)])
        .await?
        .stderr_failed()?;
    ensure!(told.contains("too late to withdraw"), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_new_task_made_from_a_cancelled_one_runs() -> anyhow::Result<()> {
    let fixture = start("copy").await?;
    let mut copy = task("copy");
    copy["metadata"]["annotations"] = json!({
        keys::CANCEL: "x", keys::CANCELLED_BY: "user:ann", keys::CANCEL_STATE: "Cancelled", "note": "kept",
    });
    let output = fixture.create(&copy).await?;
    ensure!(
        output
            .warnings()
            .iter()
            .any(|warning| warning.contains("a new Task is not cancelled")),
        "{:?}",
        output.warnings()
    );
    output.stdout_ok()?;
    let task = fixture.await_task_phase("copy", "Running").await?;
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
    let fixture = governed("off", policy).await?;
    let mut disabled = task("disabled");
    disabled["metadata"]["annotations"] = json!({keys::ITEM: "epic"});
    fixture.run(&disabled).await?;
    fixture
        .await_task("disabled", "has the finalizer", has_finalizer)
        .await?;
    let label = format!("{}={}", keys::ADMISSION, keys::ADMISSION_DISABLED);
    let name = fixture.ns.name().to_owned();
    fixture
        .cp
        .kubectl(["label", "namespace", &name, &label])
        .await?
        .stdout_ok()?;
    fixture
        .await_task("disabled", "has no finalizer", |task| !has_finalizer(task))
        .await?;
    cancel(&fixture, "disabled", "x").await?;
    fixture.finish("disabled", Outcome::failed_at_once()).await?;
    let task = fixture.await_task_phase("disabled", "Failed").await?;
    let version = task.resource_version();
    taskgate_e2e::never("something is written", std::time::Duration::from_secs(5), || async {
        let task = fixture.tasks().get("disabled").await?;
        let items = fixture.work_items();
        let counted = items.list(&kube::api::ListParams::default()).await?.items.len();
        Ok((task.resource_version() != version || counted > 0).then_some(task))
    })
    .await
}

fn has_finalizer(task: &kelos_standin::types::Task) -> bool {
    task.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING)
}

/// A Task that is not sent to admission may have any annotation of taskgate's: without a stamp that fits, nothing is carried
/// out and the state is ignored.
#[tokio::test]
async fn a_request_without_admission_is_refused() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = gate().await?.start(&cp).await?;
    let fixture = start_on(&cp, &gate, "away", CrdCapability::Base).await?;
    for name in ["asked", "forged"] {
        fixture.run(&task(name)).await?;
    }
    // Nothing is sent to admission for a while, and the controller does not see it.
    gate.process().kill().await?;
    let label = |value: &str| format!("{}{value}", keys::ADMISSION);
    let set_label = async |label: String| {
        let args = ["label", "namespace", fixture.ns.name(), &label];
        cp.kubectl(args).await?.stdout_ok().map(drop)
    };
    set_label(label("=disabled")).await?;
    cancel(&fixture, "asked", "x").await?;
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
    annotate(&fixture, "ann", "forged", &forged).await?.stdout_ok()?;
    set_label(label("-")).await?;
    gate.process().start().await?;
    for name in ["asked", "forged"] {
        let task = fixture
            .await_task(name, "is refused", |task| cancel_state(task) == "Refused")
            .await?;
        ensure!(task.phase() == "Running");
        let told = task_events(&fixture, name, "CancelRefused").await?;
        let note = told.first().and_then(|event| event.note.clone()).unwrap_or_default();
        ensure!(told.len() == 1 && note.contains("set it again"), "{told:?}");
    }
    // Asked for again it is carried out.
    let none = format!("{}-", keys::CANCEL);
    annotate(&fixture, "ann", "asked", &[&none]).await?.stdout_ok()?;
    fixture
        .await_task("asked", "is as before", |task| cancel_state(task).is_empty())
        .await?;
    cancel(&fixture, "asked", "again").await?;
    await_cancelled(&fixture, "asked").await.map(drop)
}

/// Kelos takes a Job of the Task's name for the Task's (kelos §6.4).
#[tokio::test]
async fn a_foreign_job_is_not_touched_and_blocks_until_it_is_deleted() -> anyhow::Result<()> {
    let fixture = start("foreign").await?;
    let foreign = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "mine"},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
        }}},
    });
    fixture.created(&foreign).await?;
    fixture.created(&task("mine")).await?;
    cancel(&fixture, "mine", "x").await?;
    eventually("an Event names the blocker", PATIENCE, || async {
        let told = task_events(&fixture, "mine", "CancelBlocked").await?;
        ensure!(told.len() == 1, "{told:?}");
        Ok(())
    })
    .await?;
    let job = serde_json::to_value(fixture.jobs().get("mine").await?)?;
    ensure!(JobEnd::of(&job) == JobEnd::Open, "it was changed: {}", job["status"]);
    let task = fixture.tasks().get("mine").await?;
    ensure!(
        cancel_state(&task) == "Cancelling" && task.phase() != "Failed",
        "{}",
        task.phase()
    );
    fixture.kubectl(["delete", "job", "mine"]).await?.stdout_ok()?;
    await_cancelled(&fixture, "mine").await.map(drop)
}
