//! An issue source that fails changes nothing, and the policy's condition has the reason; and how seldom it is asked.

use std::time::{Duration, Instant};

use anyhow::ensure;
use kelos_standin::Fault;
use kube::ResourceExt as _;
use taskgate_e2e::{KelosFixture, TASKGATE_AGENT, never};

use crate::support::{await_baseline, await_request, await_source_readable, start, trip, tripped};

/// Injects `fault` for taskgate while the item changes: nothing may follow until it is removed.
async fn survives(fixture: &KelosFixture<'_>, fault: Fault, reason: &str, title: &str) -> anyhow::Result<()> {
    let hash = await_baseline(fixture).await?;
    let uid = fixture.tasks().get("fixer-42").await?.uid().unwrap_or_default();
    let fault = fault.of(TASKGATE_AGENT).on(&fixture.repo_path());
    fixture.github.fault(fault);
    fixture.repo().issue(42).title(title);
    let message = await_source_readable(fixture, reason).await?;
    ensure!(message.contains("http://127.0.0.1"), "{message}");
    ensure!(await_baseline(fixture).await? == hash);
    let task = fixture.tasks().get("fixer-42").await?;
    ensure!(task.uid().as_ref() == Some(&uid));
    fixture.github.heal_on(&fixture.repo_path());
    // The condition may be Answered too briefly to be seen: the answer resets the item, and then taskgate asks no more.
    fixture.await_next_task("fixer-42", &uid).await?;
    trip(fixture).await?;
    await_baseline(fixture).await.map(drop)
}

#[tokio::test]
async fn errors_and_malformed_answers_change_nothing() -> anyhow::Result<()> {
    let fixture = start("errors").await?;
    tripped(&fixture).await?;
    survives(&fixture, Fault::status(500), "Unreachable", "a").await?;
    survives(&fixture, Fault::garbage(), "BadAnswer", "b").await?;
    survives(&fixture, Fault::status(403), "Forbidden", "c").await?;
    survives(&fixture, Fault::status(404), "Forbidden", "d").await?;
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn limits_are_honoured() -> anyhow::Result<()> {
    let fixture = start("limits").await?;
    tripped(&fixture).await?;
    for (fault, title) in [
        (Fault::rate_limited_for(Duration::from_secs(5)), "a"),
        (Fault::secondary_limit(5), "b"),
    ] {
        let fault = fault.of(TASKGATE_AGENT).on(&fixture.repo_path()).times(1);
        let before = fixture.taskgate_requests().len();
        fixture.github.fault(fault);
        fixture.repo().issue(42).title(title);
        await_source_readable(&fixture, "RateLimited").await?;
        let uid = fixture.tasks().get("fixer-42").await?.uid().unwrap_or_default();
        let seen = fixture.taskgate_requests().len();
        ensure!(
            fixture.taskgate_requests()[before..]
                .iter()
                .any(|seen| seen.status == 403)
        );
        never(
            "a request before the limit is lifted",
            Duration::from_secs(2),
            || async { Ok(fixture.taskgate_requests().get(seen).cloned()) },
        )
        .await?;
        await_source_readable(&fixture, "Answered").await?;
        fixture.await_next_task("fixer-42", &uid).await?;
        trip(&fixture).await?;
        await_baseline(&fixture).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_issue_source_that_never_answers_changes_nothing() -> anyhow::Result<()> {
    let fixture = start("late").await?;
    tripped(&fixture).await?;
    survives(&fixture, Fault::delay(Duration::from_mins(10)), "Unreachable", "late").await
}

#[tokio::test]
async fn an_unchanged_item_costs_one_request_per_interval_and_no_write() -> anyhow::Result<()> {
    let fixture = start("rest").await?;
    let (issue, _) = tripped(&fixture).await?;
    issue.comment("ci[bot]", "noted");
    let before = fixture.taskgate_requests().len();
    await_request(&fixture, "/issues/42/comments", before).await?;
    await_source_readable(&fixture, "Answered").await?;
    let (before, mark) = (fixture.taskgate_requests().len(), fixture.cp.audit().mark()?);
    let began = Instant::now();
    never("something is written", Duration::from_secs(6), || async {
        let written = fixture.cp.audit().since(mark).await?.into_iter();
        let written = written
            .filter(|event| event.is_write() && event.object_ref.namespace == fixture.ns.name())
            .filter(|event| event.user_agent != "kelos-standin");
        Ok(written.map(|event| event.summary()).next())
    })
    .await?;
    let asked = fixture.taskgate_requests();
    let seconds = began.elapsed().as_secs();
    let asked = &asked[before..];
    ensure!(
        asked.iter().all(|seen| seen.conditional && seen.is_not_modified()),
        "{asked:?}"
    );
    let count = u64::try_from(asked.len())?;
    ensure!((2..=seconds + 1).contains(&count), "{count} requests in {seconds} s");
    Ok(())
}

#[tokio::test]
async fn nothing_is_asked_while_no_item_is_tripped() -> anyhow::Result<()> {
    let fixture = start("idle").await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    fixture.await_next_task("fixer-42", "").await?;
    never("a request", Duration::from_secs(5), || async {
        Ok(fixture.taskgate_requests().pop())
    })
    .await
}
