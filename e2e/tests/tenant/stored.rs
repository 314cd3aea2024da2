//! WorkItems whose status another user than taskgate wrote.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use taskgate_e2e::{GATE_NAMESPACE, KELOS, PATIENCE, TASKGATE, eventually, never, resource, task_of_item};

use crate::support::{TenantFixture, refusal};

/// Longer than the controller takes to act on a status that it has seen.
const A_WHILE: Duration = Duration::from_secs(2);

/// A tenant with a WorkItem of item `epic`, whose Task failed once.
async fn start(hint: &str, spec: Value) -> anyhow::Result<(TenantFixture, String)> {
    let fixture = TenantFixture::governed(hint, spec).await?;
    fixture.fail(&task_of_item("epic-1", "epic"), json!({})).await?;
    fixture
        .item("epic", "has a failure", |status| status["consecutiveFailures"] == 1)
        .await?;
    let items = fixture
        .tenant
        .api(TASKGATE, "WorkItem")
        .list(&ListParams::default())
        .await?;
    let name = items.items.first().context("no WorkItem")?.name_any();
    Ok((fixture, name))
}

fn limit() -> Value {
    json!({"failurePolicy": {"maxRetriesPerItem": 3}})
}

/// A retry under way whose next step creates `predecessor` again.
fn creates(predecessor: &Value) -> Value {
    json!({"attempt": 1, "transition": {
        "old": {"kind": "Task", "name": "loot", "uid": "6e1f7b34-0d0a-4a5e-9a51-3c6a3c1b7a10"},
        "from": 1, "to": 2, "step": "Deleted", "since": jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
        "predecessor": predecessor,
    }})
}

/// A Task that the tenant could not create itself, were its rights as they are in most places.
fn loot() -> Value {
    let mut loot = task_of_item("loot", "another-item");
    loot["metadata"]["uid"] = json!("6e1f7b34-0d0a-4a5e-9a51-3c6a3c1b7a10");
    loot["spec"]["image"] = json!("registry.example/miner");
    loot["spec"]["podOverrides"] = json!({"serviceAccountName": "cluster-admin"});
    loot["status"] = json!({"phase": "Failed"});
    loot
}

/// Writes the retry of a WorkItem as taskgate itself: what an earlier version may have stored, or another user while the webhook was
/// not registered.
async fn store(fixture: &TenantFixture, name: &str, retry: &Value) -> anyhow::Result<()> {
    let client = fixture.cp.client_as_service_account(GATE_NAMESPACE, "taskgate");
    let items = kube::Api::<kube::api::DynamicObject>::namespaced_with(
        client,
        fixture.tenant.ns().name(),
        &resource(TASKGATE, "WorkItem"),
    );
    eventually("the status is stored", PATIENCE, || async {
        let status = items.get(name).await?.data["status"].take();
        let mut status = status.as_object().cloned().unwrap_or_default();
        status.insert("retry".to_owned(), retry.clone());
        let patch = json!([{"op": "add", "path": "/status", "value": status}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch)?);
        items.patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    })
    .await
}

async fn never_created(fixture: &TenantFixture) -> anyhow::Result<()> {
    let tasks = fixture.tenant.api(KELOS, "Task");
    never("the controller creates a forged Task", A_WHILE, || async {
        Ok(tasks.get_opt("loot").await?.map(|task| task.data))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_taskgate_writes_the_status_of_a_work_item() -> anyhow::Result<()> {
    let (fixture, name) = start("status", limit()).await?;
    let items = fixture.tenant.api(TASKGATE, "WorkItem");
    let forged = [
        json!({"retry": creates(&loot())}),
        json!({"retry": creates(&json!({"metadata": "x"}))}),
        json!({"consecutiveFailures": 0, "attempts": []}),
        json!({"breaker": "Closed"}),
    ];
    let refused = fixture
        .attack(async {
            let mut refused = Vec::new();
            for status in forged {
                let patch = Patch::Merge(json!({"status": status}));
                refused.push(items.patch_status(&name, &PatchParams::default(), &patch).await);
            }
            never_created(&fixture).await?;
            Ok(refused)
        })
        .await?;
    for written in refused {
        let told = refusal(written.map_err(Into::into))?;
        ensure!(told.contains("taskgate"), "{told}");
    }
    fixture
        .item("epic", "keeps its failure", |status| status["consecutiveFailures"] == 1)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_retry_creates_no_task_that_is_not_its_items_own() -> anyhow::Result<()> {
    let (fixture, name) = start("forged", limit()).await?;
    // Under a policy that retries nothing, and under one that retries.
    for retry in [
        json!(null),
        json!({"maxAttempts": 5, "backoff": {"initial": "0.1s", "max": "1s"}}),
    ] {
        if !retry.is_null() {
            let mut spec = limit();
            spec["retry"] = retry;
            fixture.policy(spec).await?;
        }
        fixture
            .attack(async {
                store(&fixture, &name, &creates(&loot())).await?;
                never_created(&fixture).await
            })
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_retry_deletes_no_task_that_did_not_fail() -> anyhow::Result<()> {
    let (fixture, name) = start("deleting", limit()).await?;
    let live = fixture.tenant.create(&task_of_item("live", "epic")).await?;
    let retry = json!({"attempt": 1, "transition": {
        "old": {"kind": "Task", "name": "live", "uid": live.uid()}, "resourceVersion": live.resource_version(),
        "from": 1, "to": 2, "step": "Deleting", "since": jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
        "predecessor": loot(),
    }});
    let tasks = fixture.tenant.api(KELOS, "Task");
    fixture
        .attack(async {
            store(&fixture, &name, &retry).await?;
            never("a live Task is deleted", A_WHILE, || async {
                let found = tasks.get_opt("live").await?;
                let deleted =
                    found.is_none_or(|task| task.uid() != live.uid() || task.metadata.deletion_timestamp.is_some());
                Ok(deleted.then_some("deleted"))
            })
            .await
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_predecessor_of_any_shape_ends_nothing() -> anyhow::Result<()> {
    let (fixture, name) = start("shapes", limit()).await?;
    let shapes = [
        json!({"metadata": "x"}),
        json!({"metadata": {"name": 7, "annotations": [], "labels": "x"}, "spec": null}),
        json!({}),
    ];
    fixture
        .attack(async {
            for shape in &shapes {
                store(&fixture, &name, &creates(&shape.clone())).await?;
                never_created(&fixture).await?;
            }
            Ok(())
        })
        .await
}
