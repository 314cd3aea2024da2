//! A policy cancels a Task whose issue source no longer lists its item, in every state that a Task can be in.

use std::time::Duration;

use anyhow::ensure;
use kelos_standin::{Fault, types::Task};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{KelosFixture, PATIENCE, eventually, never};

use crate::{
    matrix::{State, ends, fixture_in, in_every_state, reach},
    support::{cancel_state, cancelled_condition, task_events},
};

/// A fixture with a spawner for issues, whose Task for issue 42 is in this state.
async fn polled(of: State, section: &Value) -> anyhow::Result<(KelosFixture<'static>, Task)> {
    let fixture = fixture_in(of, "removed", section).await?;
    fixture.repo().issue(42);
    let when = json!({"githubIssues": {"pollInterval": "1s", "excludeLabels": ["wontfix"]}});
    let mut template = json!({"ttlSecondsAfterFinished": 3600});
    if of == State::Waiting {
        template["branch"] = "main".into();
    }
    fixture
        .spawner("fixer", &when, &json!({"taskTemplate": template}))
        .await?;
    let task = reach(&fixture, "fixer-42", of).await?;
    Ok((fixture, task))
}

#[tokio::test]
async fn a_closed_issue_is_cancelled_in_every_state() -> anyhow::Result<()> {
    in_every_state(|of| async move {
        let (fixture, _) = polled(of, &json!({"onSourceRemoved": "Cancel"})).await?;
        fixture.repo().issue(42).close();
        ends(&fixture, "fixer-42", of, "SourceRemoved").await?;
        if of != State::Finished {
            let told = cancelled_condition(&fixture.tasks().get("fixer-42").await?);
            ensure!(told["message"] == "Cancelled by spawner:fixer: #42 is closed", "{told}");
        }
        ensure!(fixture.failed_cycles("fixer") == 0, "{of:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_reopened_issue_gets_a_new_task() -> anyhow::Result<()> {
    let (fixture, old) = polled(State::Running, &json!({"onSourceRemoved": "Cancel"})).await?;
    fixture.repo().issue(42).labels(["wontfix"]);
    ends(&fixture, "fixer-42", State::Running, "SourceRemoved").await?;
    fixture.repo().issue(42).labels(["bug"]);
    fixture
        .await_task("fixer-42", "is another one that runs", |task| {
            task.uid() != old.uid() && task.phase() == "Running"
        })
        .await?;
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn an_issue_reopened_within_the_grace_withdraws_the_cancellation() -> anyhow::Result<()> {
    let section = json!({"onSourceRemoved": "Cancel", "gracePeriodSeconds": 3600});
    let (fixture, old) = polled(State::Running, &section).await?;
    fixture.repo().issue(42).close();
    fixture
        .await_task("fixer-42", "is announced", |task| cancel_state(task) == "Announced")
        .await?;
    fixture.repo().issue(42).open();
    fixture
        .await_task("fixer-42", "bears nothing of it", |task| {
            keys::CANCELLATION
                .iter()
                .all(|key| !task.annotations().contains_key(*key))
        })
        .await?;
    let task = fixture.tasks().get("fixer-42").await?;
    ensure!(task.uid() == old.uid() && task.phase() == "Running");
    Ok(())
}

#[tokio::test]
async fn an_issue_source_that_fails_cancels_nothing() -> anyhow::Result<()> {
    let (fixture, _) = polled(State::Running, &json!({"onSourceRemoved": "Cancel"})).await?;
    let path = format!("/repos/{}/r", fixture.ns.name());
    for fault in [Fault::status(500), Fault::status(403), Fault::garbage()] {
        fixture.github.fault(fault.on(&path).of("taskgate/"));
        never("it is cancelled", Duration::from_secs(4), || async {
            let task = fixture.tasks().get("fixer-42").await?;
            Ok(task.annotations().get(keys::CANCEL).cloned())
        })
        .await?;
        fixture.github.heal_on(&path);
    }
    Ok(())
}

#[tokio::test]
async fn observe_only_records_an_event() -> anyhow::Result<()> {
    let section = json!({"mode": "Observe", "onSourceRemoved": "Cancel"});
    let (fixture, _) = polled(State::Running, &section).await?;
    fixture.repo().issue(42).close();
    eventually("the Event", PATIENCE, || async {
        let events = task_events(&fixture, "fixer-42", "WouldCancel").await?;
        ensure!(events.len() == 1, "{events:?}");
        Ok(())
    })
    .await?;
    let task = fixture.await_task("fixer-42", "is there", |_| true).await?;
    ensure!(task.phase() == "Running" && !task.annotations().contains_key(keys::CANCEL));
    let tasks = fixture.tasks().list(&ListParams::default()).await?;
    ensure!(tasks.items.len() == 1);
    Ok(())
}
