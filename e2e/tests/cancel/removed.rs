//! A policy cancels what its tracker does not show any more, in every state that a Task can be in.

use std::time::Duration;

use anyhow::ensure;
use kelos_standin::{Fault, types::Task};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, await_object, eventually, never};

use crate::{
    matrix::{State, ends, in_every_state, reach, world},
    world::{World, condition, state},
};

/// A world with a spawner for issues, whose Task for issue 42 is in this state.
async fn polled(of: State, section: &Value) -> anyhow::Result<(World<'static>, Task)> {
    let world = world(of, "removed", section).await?;
    world.repo().issue(42);
    let when = json!({"githubIssues": {"pollInterval": "1s", "excludeLabels": ["wontfix"]}});
    let mut extra = json!({"ttlSecondsAfterFinished": 3600});
    if of == State::Waiting {
        extra["branch"] = "main".into();
    }
    world.spawner("fixer", &when, &extra).await?;
    let task = reach(&world, "fixer-42", of).await?;
    Ok((world, task))
}

#[tokio::test]
async fn what_is_closed_is_cancelled_in_every_state() -> anyhow::Result<()> {
    in_every_state(|of| async move {
        let (world, _) = polled(of, &json!({"onSourceRemoved": "Cancel"})).await?;
        world.repo().issue(42).close();
        ends(&world, "fixer-42", of, "SourceRemoved").await?;
        if of != State::Finished {
            let told = condition(&world.tasks().get("fixer-42").await?);
            ensure!(told["message"] == "Cancelled by spawner:fixer: #42 is closed", "{told}");
        }
        ensure!(world.failed_cycles("fixer") == 0, "{of:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_opened_again_gets_a_new_task() -> anyhow::Result<()> {
    let (world, old) = polled(State::Running, &json!({"onSourceRemoved": "Cancel"})).await?;
    world.repo().issue(42).labels(["wontfix"]);
    ends(&world, "fixer-42", State::Running, "SourceRemoved").await?;
    world.repo().issue(42).labels(["bug"]);
    world
        .await_task("fixer-42", "is another one that runs", |task| {
            task.uid() != old.uid() && task.phase() == "Running"
        })
        .await?;
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn who_reopens_within_the_grace_spares_it() -> anyhow::Result<()> {
    let section = json!({"onSourceRemoved": "Cancel", "gracePeriodSeconds": 3600});
    let (world, old) = polled(State::Running, &section).await?;
    world.repo().issue(42).close();
    world
        .await_task("fixer-42", "is announced", |task| state(task) == "Announced")
        .await?;
    world.repo().issue(42).open();
    world
        .await_task("fixer-42", "bears nothing of it", |task| {
            keys::CANCELLATION
                .iter()
                .all(|key| !task.annotations().contains_key(*key))
        })
        .await?;
    let task = world.tasks().get("fixer-42").await?;
    ensure!(task.uid() == old.uid() && task.phase() == "Running");
    Ok(())
}

#[tokio::test]
async fn a_tracker_that_fails_cancels_nothing() -> anyhow::Result<()> {
    let (world, _) = polled(State::Running, &json!({"onSourceRemoved": "Cancel"})).await?;
    let path = format!("/repos/{}/r", world.ns.name());
    for fault in [Fault::status(500), Fault::status(403), Fault::garbage()] {
        world.github.fault(fault.on(&path).of("taskgate/"));
        never("it is cancelled", Duration::from_secs(4), || async {
            let task = world.tasks().get("fixer-42").await?;
            Ok(task.annotations().get(keys::CANCEL).cloned())
        })
        .await?;
        world.github.heal_on(&path);
    }
    Ok(())
}

#[tokio::test]
async fn observe_only_tells() -> anyhow::Result<()> {
    let section = json!({"mode": "Observe", "onSourceRemoved": "Cancel"});
    let (world, _) = polled(State::Running, &section).await?;
    world.repo().issue(42).close();
    eventually("the Event", PATIENCE, || async {
        let events = world.events("fixer-42", "WouldCancel").await?;
        ensure!(events.len() == 1, "{events:?}");
        Ok(())
    })
    .await?;
    let task = await_object(&world.tasks(), "fixer-42", "is there", |_| true).await?;
    ensure!(task.phase() == "Running" && !task.annotations().contains_key(keys::CANCEL));
    let tasks = world.tasks().list(&ListParams::default()).await?;
    ensure!(tasks.items.len() == 1);
    Ok(())
}
