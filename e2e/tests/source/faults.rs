//! A tracker that does not answer as it should changes nothing, and the policy says so; and how seldom it is asked.

use std::time::{Duration, Instant};

use anyhow::ensure;
use kelos_standin::Fault;
use kube::ResourceExt as _;
use taskgate_e2e::never;

use crate::world::{AGENT, World};

/// Lets `fault` strike taskgate while the item changes: nothing may follow until it is healed.
async fn survives(world: &World, fault: Fault, reason: &str, title: &str) -> anyhow::Result<()> {
    let hash = world.baseline().await?;
    let uid = world.tasks().get("fixer-42").await?.uid().unwrap_or_default();
    let fault = fault.of(AGENT).on(&world.path());
    world.github.fault(fault);
    world.repo().issue(42).title(title);
    let message = world.readable(reason).await?;
    ensure!(message.contains("http://127.0.0.1"), "{message}");
    ensure!(world.baseline().await? == hash);
    let task = world.tasks().get("fixer-42").await?;
    ensure!(task.uid().as_ref() == Some(&uid));
    world.github.heal_on(&world.path());
    // That it is answered may be too short to be seen in the policy: the answer starts the item again, and then nobody asks.
    world.next(&uid).await?;
    world.fail("fixer-42").await?;
    world.baseline().await.map(drop)
}

#[tokio::test]
async fn errors_and_nonsense_change_nothing() -> anyhow::Result<()> {
    let world = World::start("errors").await?;
    world.broken().await?;
    survives(&world, Fault::status(500), "Unreachable", "a").await?;
    survives(&world, Fault::garbage(), "BadAnswer", "b").await?;
    survives(&world, Fault::status(403), "Forbidden", "c").await?;
    survives(&world, Fault::status(404), "Forbidden", "d").await?;
    ensure!(world.failed_cycles() == 0);
    Ok(())
}

#[tokio::test]
async fn limits_are_honoured() -> anyhow::Result<()> {
    let world = World::start("limits").await?;
    world.broken().await?;
    for (fault, title) in [
        (Fault::rate_limited_for(Duration::from_secs(5)), "a"),
        (Fault::secondary_limit(5), "b"),
    ] {
        let fault = fault.of(AGENT).on(&world.path()).times(1);
        let before = world.asked().len();
        world.github.fault(fault);
        world.repo().issue(42).title(title);
        world.readable("RateLimited").await?;
        let uid = world.tasks().get("fixer-42").await?.uid().unwrap_or_default();
        let told = world.asked().len();
        ensure!(world.asked()[before..].iter().any(|seen| seen.status == 403));
        never(
            "a request before the limit is lifted",
            Duration::from_secs(2),
            || async { Ok(world.asked().get(told).cloned()) },
        )
        .await?;
        world.readable("Answered").await?;
        world.next(&uid).await?;
        world.fail("fixer-42").await?;
        world.baseline().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_tracker_that_never_answers_changes_nothing() -> anyhow::Result<()> {
    let world = World::start("late").await?;
    world.broken().await?;
    survives(&world, Fault::delay(Duration::from_mins(10)), "Unreachable", "late").await
}

#[tokio::test]
async fn an_unchanged_item_costs_one_request_per_interval_and_no_write() -> anyhow::Result<()> {
    let world = World::start("rest").await?;
    let (issue, _) = world.broken().await?;
    issue.comment("ci[bot]", "noted");
    let before = world.asked().len();
    world.asks("/issues/42/comments", before).await?;
    world.readable("Answered").await?;
    let (before, mark) = (world.asked().len(), world.cp.audit().mark()?);
    let began = Instant::now();
    never("something is written", Duration::from_secs(6), || async {
        let written = world.cp.audit().since(mark).await?.into_iter();
        let written = written
            .filter(|event| event.is_write() && event.object_ref.namespace == world.ns.name())
            .filter(|event| event.user_agent != "kelos-standin");
        Ok(written.map(|event| event.summary()).next())
    })
    .await?;
    let asked = world.asked();
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
async fn nothing_is_asked_while_no_item_is_stopped() -> anyhow::Result<()> {
    let world = World::start("idle").await?;
    world.repo().issue(42);
    world.issues().await?;
    world.next("").await?;
    never("a request", Duration::from_secs(5), || async {
        Ok(world.asked().pop())
    })
    .await
}
