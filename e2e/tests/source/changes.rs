//! What starts a stopped item again, and what does not.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::events::v1::Event;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::json;
use taskgate_api::WorkItem;
use taskgate_e2e::{PATIENCE, await_gone, eventually, never};

use crate::world::World;

/// The one new Task that follows a change, and that no other does while nothing else changes.
async fn starts_again_once(world: &World, old: &str) -> anyhow::Result<()> {
    let next = world.next(old).await?.uid().unwrap_or_default();
    let status = world
        .item("is reset", |status| status.consecutive_failures == 0)
        .await?;
    let reset = status.last_reset.map(|reset| reset.reason);
    ensure!(reset.as_deref() == Some("ContentChanged"), "{reset:?}");
    ensure!(world.failed_cycles() == 0, "the spawner failed a cycle");
    world.fail("fixer-42").await?;
    world.baseline().await?;
    never("a third Task", Duration::from_secs(4), || async {
        let task = world.tasks().get("fixer-42").await?;
        Ok((task.uid().as_deref() != Some(&next)).then(|| task.name_any()))
    })
    .await
}

/// That the item stays stopped, although taskgate looked again.
async fn stays_stopped(world: &World, uid: &str, hash: &str) -> anyhow::Result<()> {
    never("a new Task", Duration::from_secs(4), || async {
        let task = world.tasks().get("fixer-42").await?;
        Ok((task.uid().as_deref() != Some(uid)).then(|| task.name_any()))
    })
    .await?;
    ensure!(world.baseline().await? == hash);
    Ok(())
}

#[tokio::test]
async fn another_title_starts_it_again_once() -> anyhow::Result<()> {
    let world = World::start("title").await?;
    let (issue, uid) = world.broken().await?;
    world.readable("Answered").await?;
    issue.title("Crash when the list is empty");
    starts_again_once(&world, &uid).await?;
    eventually("the Event", PATIENCE, || async {
        let events = world.ns.api::<Event>().list(&ListParams::default()).await?;
        let notes: Vec<_> = events.iter().filter_map(|event| event.note.as_deref()).collect();
        ensure!(
            notes.iter().any(|note| note.contains("item 42 changed at its source")),
            "{notes:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn another_text_starts_it_again_once() -> anyhow::Result<()> {
    let world = World::start("text").await?;
    let (issue, uid) = world.broken().await?;
    issue.body("Steps: none. Expected: no crash.");
    starts_again_once(&world, &uid).await
}

#[tokio::test]
async fn another_label_starts_it_again_once() -> anyhow::Result<()> {
    let world = World::start("label").await?;
    let (issue, uid) = world.broken().await?;
    issue.labels(["needs-fix"]);
    starts_again_once(&world, &uid).await
}

#[tokio::test]
async fn what_a_person_comments_starts_it_again_and_what_a_bot_does_not() -> anyhow::Result<()> {
    let world = World::start("comment").await?;
    let (issue, uid) = world.broken().await?;
    let hash = world.baseline().await?;
    let before = world.asked().len();
    issue.comment("ci[bot]", "checks failed");
    issue.comment("ann", "🤖 **Kelos Task Status**\n\nTask `fixer-42` has **failed**. ❌");
    world.asks("/issues/42/comments", before).await?;
    stays_stopped(&world, &uid, &hash).await?;
    issue.comment("ann", "It also happens on the second page.");
    starts_again_once(&world, &uid).await
}

#[tokio::test]
async fn what_says_nothing_new_changes_nothing() -> anyhow::Result<()> {
    let world = World::start("touch").await?;
    let (issue, uid) = world.broken().await?;
    let hash = world.baseline().await?;
    let before = world.asked().len();
    issue.assignee("ann");
    world.asks("/issues/42", before).await?;
    stays_stopped(&world, &uid, &hash).await
}

#[tokio::test]
async fn a_pull_request_is_read_as_one() -> anyhow::Result<()> {
    let world = World::start("pull").await?;
    let pull = world.repo().pull(42);
    world
        .spawner(json!({"githubPullRequests": {"pollInterval": "1s"}}))
        .await?;
    let uid = world.fail("fixer-42").await?;
    let hash = world.baseline().await?;
    let before = world.asked().len();
    pull.push("0123456789");
    world.asks("/pulls/42", before).await?;
    stays_stopped(&world, &uid, &hash).await?;
    pull.title("Another title");
    starts_again_once(&world, &uid).await
}

#[tokio::test]
async fn a_closed_item_is_forgotten_with_its_tombstone() -> anyhow::Result<()> {
    let world = World::start("closed").await?;
    let (issue, uid) = world.broken().await?;
    issue.close();
    await_gone(&world.tasks(), "fixer-42").await?;
    eventually("the memory is gone", PATIENCE, || async {
        let items = world.ns.api::<WorkItem>().list(&ListParams::default()).await?;
        ensure!(items.items.is_empty(), "{items:?}");
        Ok(())
    })
    .await?;
    issue.open();
    world.next(&uid).await?;
    ensure!(world.failed_cycles() == 0);
    Ok(())
}

#[tokio::test]
async fn an_item_that_the_spawner_no_longer_sees_is_forgotten() -> anyhow::Result<()> {
    let world = World::start("filtered").await?;
    let issue = world.repo().issue(42);
    issue.labels(["ready"]);
    world
        .spawner(json!({"githubIssues": {"pollInterval": "1s", "labels": ["ready"]}}))
        .await?;
    world.fail("fixer-42").await?;
    world.baseline().await?;
    issue.labels([]);
    await_gone(&world.tasks(), "fixer-42").await
}
