//! `status.failedItems` of a TaskSpawner: it mirrors the WorkItems, a user who removes an entry resets the item, and no cycle fails.

use std::time::Duration;

use anyhow::ensure;
use kelos_standin::CycleResult;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_api::WorkItem;
use taskgate_e2e::{KelosFixture, eventually, failures, never};
use taskgate_policy::ItemIdentity;

use crate::support::{await_cycle, await_spawner, remove_from_status, spawner, start, stored};

/// A spawner whose issue 42 failed once, which is its limit: the UID of the Task that failed.
async fn tripped(hint: &str) -> anyhow::Result<(KelosFixture<'static>, String)> {
    let fixture = start(hint).await?;
    let own = json!({"failurePolicy": {"maxRetriesPerItem": 1}, "taskTemplate": {"ttlSecondsAfterFinished": 1}});
    fixture.created(&spawner("fixer", &own)).await?;
    await_cycle(&fixture, "fixer").await?;
    fixture.repo().issue(42);
    let failed = fixture.fail("fixer-42").await?;
    fixture.await_open("42").await?;
    await_spawner(&fixture, "fixer", "has the failed item", |spawner| {
        spawner["status"]["failedItems"]["42"]["consecutiveFailures"] == 1
    })
    .await?;
    Ok((fixture, failed))
}

#[tokio::test]
async fn a_user_who_removes_an_entry_resets_the_item() -> anyhow::Result<()> {
    let (fixture, failed) = tripped("removes").await?;
    let listed = fixture
        .await_spawner_condition("fixer", "ItemsCircuitBroken", "True")
        .await?;
    ensure!(listed["message"] == "1 item skipped due to max retries: 42", "{listed}");
    // The proposal's own command.
    remove_from_status(&fixture, "/status/failedItems/42").await?;
    fixture.await_next_task("fixer-42", &failed).await?;
    let item = fixture
        .await_work_item("42", "is reset by the user", |item| failures(item) == 0)
        .await?;
    let reset = item.status.and_then(|status| status.last_reset);
    ensure!(
        reset.as_ref().is_some_and(|reset| reset.by.as_deref() == Some("ann")),
        "{reset:?}"
    );
    let now = await_spawner(&fixture, "fixer", "has no entry and no request", |spawner| {
        let gone = |field: &str| spawner["status"][field].get("42").is_none();
        gone("failedItems") && gone("failedItemResets")
    })
    .await?;
    // The user's write, and the one that carries it out, come at any moment of a cycle.
    ensure!(fixture.failed_cycles("fixer") <= 2, "{now}");
    Ok(())
}

#[tokio::test]
async fn a_lost_map_is_written_again_and_resets_nothing() -> anyhow::Result<()> {
    let (fixture, _) = tripped("lost").await?;
    remove_from_status(&fixture, "/status/failedItems").await?;
    await_spawner(&fixture, "fixer", "has the failed item again", |spawner| {
        spawner["status"]["failedItems"]["42"]["consecutiveFailures"] == 1
    })
    .await?;
    let item = fixture.await_open("42").await?;
    ensure!(failures(&item) == 1, "{item:?}");
    Ok(())
}

fn identity(item: usize) -> ItemIdentity {
    ItemIdentity {
        key: format!("fixer/{item}"),
        item: item.to_string(),
        spawner: Some("fixer".to_owned()),
    }
}

/// Lets the item have failed `count` times.
async fn set_failures(items: &Api<WorkItem>, item: usize, count: u32) -> anyhow::Result<()> {
    let name = &identity(item).work_item_name();
    let status = json!({"status": {
        "breaker": "Closed", "consecutiveFailures": count, "lastFailureTime": format!("2026-01-31T12:00:{count:02}Z"),
    }});
    items
        .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// How many entries the spawner has whose count is `count`.
fn entries(spawner: &Value, count: u32) -> usize {
    let entries = spawner["status"]["failedItems"].as_object();
    let entries = entries.into_iter().flat_map(|entries| entries.values());
    entries.filter(|entry| entry["consecutiveFailures"] == count).count()
}

#[tokio::test]
async fn no_cycle_of_two_hundred_fails_with_fifty_entries() -> anyhow::Result<()> {
    const ITEMS: usize = 50;
    const CYCLES: u64 = 200;
    let fixture = start("cycles").await?;
    let own = json!({
        "when": {"githubIssues": {"pollInterval": "500ms"}},
        "failurePolicy": {"maxRetriesPerItem": 9},
    });
    fixture.created(&spawner("fixer", &own)).await?;
    let items = Api::<WorkItem>::namespaced(fixture.cp.client_as_taskgate(), fixture.name());
    for index in 0..ITEMS {
        let identity = identity(index);
        let work_item = identity.work_item(&identity.work_item_name());
        items.create(&PostParams::default(), &work_item).await?;
        set_failures(&items, index, 1).await?;
    }
    let has = |count: u32| move |spawner: &Value| entries(spawner, count) == ITEMS;
    await_spawner(&fixture, "fixer", "has all entries", has(1)).await?;
    let cycles = || fixture.standin.cycles(&fixture.key("fixer"), CycleResult::Success);
    let begin = cycles();
    // Each half with one change of every entry.
    for half in 1..=2 {
        let count = 1 + half;
        for index in 0..ITEMS {
            set_failures(&items, index, count).await?;
        }
        eventually("half of the cycles", Duration::from_mins(2), async || {
            let seen = cycles() - begin;
            ensure!(seen >= CYCLES / 2 * u64::from(half), "{seen} cycles");
            Ok(())
        })
        .await?;
        await_spawner(&fixture, "fixer", "has all entries anew", has(count)).await?;
    }
    let failed = fixture.failed_cycles("fixer");
    ensure!(failed == 0, "{failed} of {} cycles failed", cycles() - begin);
    never("an entry changes while idle", Duration::from_secs(2), async || {
        Ok((entries(&stored(&fixture, "fixer").await?, 3) != ITEMS).then_some("an entry"))
    })
    .await
}
