//! Which changes of an item reset it, and which do not.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::events::v1::Event;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::json;
use taskgate_e2e::{KelosFixture, PATIENCE, await_gone, eventually, failures, never};

use crate::support::{await_baseline, await_request, await_source_readable, start, trip, tripped};

/// One new Task follows a change, and no other while nothing else changes.
async fn starts_again_once(fixture: &KelosFixture<'_>, old: &str) -> anyhow::Result<()> {
    let next = fixture
        .await_next_task("fixer-42", old)
        .await?
        .uid()
        .unwrap_or_default();
    let item = fixture
        .await_work_item("42", "is reset", |item| failures(item) == 0)
        .await?;
    let reset = item
        .status
        .and_then(|status| status.last_reset)
        .map(|reset| reset.reason);
    ensure!(reset.as_deref() == Some("ContentChanged"), "{reset:?}");
    ensure!(fixture.failed_cycles("fixer") == 0, "the spawner failed a cycle");
    trip(fixture).await?;
    await_baseline(fixture).await?;
    never("a third Task", Duration::from_secs(4), || async {
        let task = fixture.tasks().get("fixer-42").await?;
        Ok((task.uid().as_deref() != Some(&next)).then(|| task.name_any()))
    })
    .await
}

/// The item stays tripped, although taskgate has read it again.
async fn stays_stopped(fixture: &KelosFixture<'_>, uid: &str, hash: &str) -> anyhow::Result<()> {
    never("a new Task", Duration::from_secs(4), || async {
        let task = fixture.tasks().get("fixer-42").await?;
        Ok((task.uid().as_deref() != Some(uid)).then(|| task.name_any()))
    })
    .await?;
    ensure!(await_baseline(fixture).await? == hash);
    Ok(())
}

#[tokio::test]
async fn another_title_starts_it_again_once() -> anyhow::Result<()> {
    let fixture = start("title").await?;
    let (issue, uid) = tripped(&fixture).await?;
    await_source_readable(&fixture, "Answered").await?;
    issue.title("Crash when the list is empty");
    starts_again_once(&fixture, &uid).await?;
    eventually("the Event", PATIENCE, || async {
        let events = fixture.ns.api::<Event>().list(&ListParams::default()).await?;
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
    let fixture = start("text").await?;
    let (issue, uid) = tripped(&fixture).await?;
    issue.body("Steps: none. Expected: no crash.");
    starts_again_once(&fixture, &uid).await
}

#[tokio::test]
async fn another_label_starts_it_again_once() -> anyhow::Result<()> {
    let fixture = start("label").await?;
    let (issue, uid) = tripped(&fixture).await?;
    issue.labels(["needs-fix"]);
    starts_again_once(&fixture, &uid).await
}

#[tokio::test]
async fn a_users_comment_starts_it_again_and_a_bots_does_not() -> anyhow::Result<()> {
    let fixture = start("comment").await?;
    let (issue, uid) = tripped(&fixture).await?;
    let hash = await_baseline(&fixture).await?;
    let before = fixture.taskgate_requests().len();
    issue.comment("ci[bot]", "checks failed");
    issue.comment("ann", "🤖 **Kelos Task Status**\n\nTask `fixer-42` has **failed**. ❌");
    await_request(&fixture, "/issues/42/comments", before).await?;
    stays_stopped(&fixture, &uid, &hash).await?;
    issue.comment("ann", "It also happens on the second page.");
    starts_again_once(&fixture, &uid).await
}

#[tokio::test]
async fn a_change_without_new_content_changes_nothing() -> anyhow::Result<()> {
    let fixture = start("touch").await?;
    let (issue, uid) = tripped(&fixture).await?;
    let hash = await_baseline(&fixture).await?;
    let before = fixture.taskgate_requests().len();
    issue.assignee("ann");
    await_request(&fixture, "/issues/42", before).await?;
    stays_stopped(&fixture, &uid, &hash).await
}

#[tokio::test]
async fn a_pull_request_is_read_as_one() -> anyhow::Result<()> {
    let fixture = start("pull").await?;
    let pull = fixture.repo().pull(42);
    fixture
        .spawner(
            "fixer",
            &json!({"githubPullRequests": {"pollInterval": "1s"}}),
            &json!({}),
        )
        .await?;
    let uid = trip(&fixture).await?;
    let hash = await_baseline(&fixture).await?;
    let before = fixture.taskgate_requests().len();
    pull.push("0123456789");
    await_request(&fixture, "/pulls/42", before).await?;
    stays_stopped(&fixture, &uid, &hash).await?;
    pull.title("Another title");
    starts_again_once(&fixture, &uid).await
}

#[tokio::test]
async fn a_closed_item_is_deleted_with_its_tombstone() -> anyhow::Result<()> {
    let fixture = start("closed").await?;
    let (issue, uid) = tripped(&fixture).await?;
    issue.close();
    await_gone(&fixture.tasks(), "fixer-42").await?;
    eventually("the WorkItem is gone", PATIENCE, || async {
        let items = fixture.work_items().list(&ListParams::default()).await?;
        ensure!(items.items.is_empty(), "{items:?}");
        Ok(())
    })
    .await?;
    issue.open();
    fixture.await_next_task("fixer-42", &uid).await?;
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn an_item_that_the_spawner_no_longer_lists_is_deleted() -> anyhow::Result<()> {
    let fixture = start("filtered").await?;
    let issue = fixture.repo().issue(42);
    issue.labels(["ready"]);
    fixture
        .spawner(
            "fixer",
            &json!({"githubIssues": {"pollInterval": "1s", "labels": ["ready"]}}),
            &json!({}),
        )
        .await?;
    trip(&fixture).await?;
    await_baseline(&fixture).await?;
    issue.labels([]);
    await_gone(&fixture.tasks(), "fixer-42").await
}
