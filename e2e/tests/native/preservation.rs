//! No field is lost: not to Kelos' writes, not while taskgate is unavailable; and a user removes one for good.

use anyhow::ensure;
use kelos_standin::CRDS;
use kube::{
    Client,
    api::{Api, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Gate, KELOS, KelosNamespace, resource};

use crate::support::{
    await_cycles, await_spawner, await_stored, copy, cycles, enable, policy, remove_from_status, spawner, start, stored,
};

/// All fields of a TaskSpawner's spec.
fn fields() -> Value {
    json!({
        "failurePolicy": {"maxRetriesPerItem": 3, "resetOnChange": true},
        "cancellationPolicy": {"onSourceRemoved": "Cancel", "gracePeriodSeconds": 30},
        "taskTemplate": {"queueName": "agents"},
    })
}

fn has_fields(spawner: &Value) -> bool {
    let spec = &spawner["spec"];
    spec["failurePolicy"]["maxRetriesPerItem"] == 3
        && spec["cancellationPolicy"]["onRetrigger"] == "Ignore"
        && spec["taskTemplate"]["queueName"] == "agents"
}

/// The TaskSpawners of a namespace, as the user of `client`.
fn spawners(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource(KELOS, "TaskSpawner"))
}

fn has_finalizer(spawner: &Value) -> bool {
    spawner["metadata"]["finalizers"][0] == "kelos.dev/taskspawner-finalizer"
}

#[tokio::test]
async fn no_field_is_lost_to_the_finalizer_and_the_cycles_of_kelos() -> anyhow::Result<()> {
    let fixture = start("kept").await?;
    fixture.created(&spawner("fixer", &fields())).await?;
    let with = await_spawner(&fixture, "fixer", "has Kelos' finalizer", has_finalizer).await?;
    ensure!(has_fields(&with), "{with}");
    // Defaults are those of the schema, as for Kelos' own fields.
    ensure!(with["spec"]["cancellationPolicy"]["gracePeriodSeconds"] == 30, "{with}");
    let items =
        json!({"42": {"consecutiveFailures": 3, "lastFailureTime": "2026-01-31T12:00:00Z", "contentHash": "x"}});
    let mine = spawners(fixture.cp.client_as_taskgate(), fixture.name());
    let patch = json!({"status": {"failedItems": items}});
    mine.patch_status("fixer", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    // The test's own write may have hit the first of them.
    await_cycles(&fixture, "fixer", 2).await?;
    cycles(&fixture, "fixer", 3).await?;
    let now = stored(&fixture, "fixer").await?;
    ensure!(has_fields(&now) && now["status"]["failedItems"] == items, "{now}");
    Ok(())
}

#[tokio::test]
async fn an_entry_that_a_user_removes_is_recorded_and_a_lost_map_is_not() -> anyhow::Result<()> {
    let fixture = start("entries").await?;
    fixture.created(&spawner("fixer", &json!({"suspend": true}))).await?;
    await_spawner(&fixture, "fixer", "has Kelos' finalizer", has_finalizer).await?;
    let entry = json!({"consecutiveFailures": 3, "lastFailureTime": "2026-01-31T12:00:00Z"});
    let mine = spawners(fixture.cp.client_as_taskgate(), fixture.name());
    let patch = json!({"status": {"failedItems": {"42": entry, "43": entry}}});
    mine.patch_status("fixer", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    remove_from_status(&fixture, "/status/failedItems").await?;
    let lost = stored(&fixture, "fixer").await?;
    ensure!(lost["status"]["failedItemResets"].is_null(), "{lost}");
    mine.patch_status("fixer", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    remove_from_status(&fixture, "/status/failedItems/42").await?;
    // The controller resets the item, and removes the record: there is no such item here.
    let now = stored(&fixture, "fixer").await?;
    let recorded =
        now["status"]["failedItemResets"]["42"]["by"] == "ann" || now["status"]["failedItemResets"].get("42").is_none();
    ensure!(recorded && now["status"]["failedItems"].get("42").is_none(), "{now}");
    Ok(())
}

#[tokio::test]
async fn a_user_who_removes_a_field_removes_its_copy() -> anyhow::Result<()> {
    let fixture = start("removed").await?;
    fixture.created(&spawner("fixer", &fields())).await?;
    let with = await_spawner(&fixture, "fixer", "has Kelos' finalizer", has_finalizer).await?;
    ensure!(copy(&with).is_some_and(|copy| copy["queueName"] == "agents"), "{with}");
    let patch = json!({"spec": {"failurePolicy": null, "taskTemplate": {"queueName": null}}}).to_string();
    let removed = fixture
        .kubectl(["patch", "taskspawner", "fixer", "--type=merge", "-p", &patch])
        .await?;
    ensure!(
        removed
            .warnings()
            .iter()
            .any(|warning| warning.contains("spec.failurePolicy")),
        "{removed:?}"
    );
    removed.stdout_ok()?;
    cycles(&fixture, "fixer", 3).await?;
    let now = stored(&fixture, "fixer").await?;
    ensure!(
        now["spec"]["failurePolicy"].is_null() && now["spec"]["taskTemplate"]["queueName"].is_null(),
        "{now}"
    );
    let kept = copy(&now).unwrap_or_default();
    ensure!(
        kept.as_object()
            .is_some_and(|copy| copy.keys().eq(["cancellationPolicy"])),
        "{now}"
    );
    Ok(())
}

#[tokio::test]
async fn an_imitator_of_kelos_is_not_trusted() -> anyhow::Result<()> {
    let fixture = start("imitator").await?;
    fixture.created(&spawner("fixer", &fields())).await?;
    await_spawner(&fixture, "fixer", "has Kelos' finalizer", has_finalizer).await?;
    // The controller's name in the tenant's own namespace: a user, whose removal counts.
    let imitator = format!("system:serviceaccount:{}:kelos-controller", fixture.name());
    let own = spawners(fixture.cp.client_as(&imitator, &["system:masters"]), fixture.name());
    let patch = json!({"spec": {"failurePolicy": null}});
    own.patch("fixer", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    let now = stored(&fixture, "fixer").await?;
    ensure!(
        now["spec"]["failurePolicy"].is_null() && copy(&now).is_some_and(|copy| copy.get("failurePolicy").is_none()),
        "{now}"
    );
    // The spawner's name there is trusted to drop, never to remove; and it requests no reset.
    let imitator = format!("system:serviceaccount:{}:kelos-spawner", fixture.name());
    let own = spawners(fixture.cp.client_as(&imitator, &["system:masters"]), fixture.name());
    let patch = json!({"spec": {"cancellationPolicy": null}});
    own.patch("fixer", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    let forged = json!({"status": {"failedItemResets": {"42": {"by": "ann"}}}});
    own.patch_status("fixer", &PatchParams::default(), &Patch::Merge(&forged))
        .await?;
    let now = stored(&fixture, "fixer").await?;
    ensure!(
        now["spec"]["cancellationPolicy"].is_object() && now["status"]["failedItemResets"].is_null(),
        "{now}"
    );
    Ok(())
}

#[tokio::test]
async fn what_kelos_drops_while_taskgate_is_unavailable_is_restored() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = Gate::builder().start(&cp).await?;
    enable(&cp).await?;
    let ns = cp.namespace("unavailable").await?;
    ns.created(&spawner("fixer", &fields())).await?;
    gate.process().kill().await?;
    // Kelos starts now: its finalizer is its first write.
    let kelos = KelosNamespace::builder().service_accounts().start(ns).await?;
    let dropped = await_spawner(&kelos, "fixer", "has Kelos' finalizer", has_finalizer).await?;
    ensure!(
        dropped["spec"]["failurePolicy"].is_null(),
        "taskgate is unavailable: {dropped}"
    );
    ensure!(
        copy(&dropped).is_some_and(|copy| copy["failurePolicy"]["maxRetriesPerItem"] == 3),
        "{dropped}"
    );
    // Without taskgate, no user's field is stored unseen.
    let refused = kelos.create(&spawner("unseen", &policy(3))).await?.stderr_failed()?;
    ensure!(refused.contains("mutate.taskspawners.taskgate.dev"), "{refused}");
    kelos.created(&spawner("plain", &json!({}))).await?;
    gate.process().start().await?;
    await_spawner(&kelos, "fixer", "has its fields again", has_fields).await?;
    await_stored(&cp, true).await?;
    cycles(&kelos, "fixer", 3).await?;
    let now = stored(&kelos, "fixer").await?;
    ensure!(has_fields(&now), "{now}");
    let log = gate.process().log()?;
    ensure!(
        log.contains("restored the fields of a TaskSpawner"),
        "{}",
        gate.process().log_tail(20)
    );
    Ok(())
}
