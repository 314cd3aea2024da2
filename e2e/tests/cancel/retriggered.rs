//! A policy cancels what is triggered again while it is active, in every state that a Task can be in.

use std::time::Duration;

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, eventually};

use crate::{
    matrix::{State, comes_again_once, created, ends, fixture_in, in_every_state, reach, stays, task_of},
    support::{cancel_state, task_events},
};

fn on_retrigger() -> Value {
    json!({"onRetrigger": "Cancel"})
}

/// What a spawner's template needs so that its Tasks get into this state.
fn template_of(of: State) -> Value {
    let mut template = json!({"ttlSecondsAfterFinished": 3600});
    if of == State::Waiting {
        template["dependsOn"] = json!(["missing"]);
    }
    json!({"taskTemplate": template})
}

/// If the Task has ended, Kelos itself creates the new one.
#[tokio::test]
async fn a_trigger_comment_brings_a_new_task_exactly_once() -> anyhow::Result<()> {
    in_every_state(|of| async move {
        let fixture = fixture_in(of, "again", &on_retrigger()).await?;
        let mark = fixture.cp.audit().mark()?;
        let before = Timestamp::now() - SignedDuration::from_secs(60);
        fixture.repo().issue(42).comment_at("ann", "/again", before);
        let when = json!({"githubIssues": {"pollInterval": "1s", "commentPolicy": {"triggerComment": "/again"}}});
        fixture.spawner("fixer", &when, &template_of(of)).await?;
        let old = reach(&fixture, "fixer-42", of).await?;
        // Times of creation and of the end have whole seconds.
        let later = Timestamp::now() + SignedDuration::from_secs(1);
        fixture.repo().issue(42).comment_at("ann", "/again", later);
        comes_again_once(&fixture, "fixer-42", &old, of.phase(), mark).await?;
        let told = task_events(&fixture, "fixer-42", "TaskCancelled").await?.len();
        ensure!(told == usize::from(of != State::Finished), "{of:?}: told {told} times");
        Ok(())
    })
    .await
}

/// Not for a Task that works on a branch: its agent may have pushed the head itself.
#[tokio::test]
async fn a_new_head_brings_a_new_task_exactly_once() -> anyhow::Result<()> {
    in_every_state(|of| async move {
        let fixture = fixture_in(of, "head", &on_retrigger()).await?;
        let mark = fixture.cp.audit().mark()?;
        fixture.repo().pull(42).push(&"a".repeat(40));
        let when = json!({"githubPullRequests": {"pollInterval": "1s"}});
        fixture.spawner("fixer", &when, &template_of(of)).await?;
        fixture
            .await_task("fixer-42", "has a head to compare with", |task| {
                task.annotations().contains_key(keys::SOURCE_HEAD)
            })
            .await?;
        let old = reach(&fixture, "fixer-42", of).await?;
        fixture.repo().pull(42).push(&"b".repeat(40));
        if of != State::Finished {
            return comes_again_once(&fixture, "fixer-42", &old, of.phase(), mark).await;
        }
        stays(&fixture, "fixer-42").await?;
        ensure!(created(&fixture, "fixer-42", mark).await? == 1, "created again");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_newer_task_of_the_item_ends_the_older_one_in_every_state() -> anyhow::Result<()> {
    in_every_state(|of| async move {
        let fixture = fixture_in(of, "newer", &on_retrigger()).await?;
        let of_item = |name: &str| {
            let mut task = task_of(of, name);
            task["metadata"]["annotations"] = json!({"taskgate.dev/item": "epic"});
            task
        };
        fixture.created(&of_item("older")).await?;
        let older = reach(&fixture, "older", of).await?;
        // Times of creation have whole seconds.
        let created = older.creation_timestamp().map(|time| time.0);
        eventually("a second has passed", PATIENCE, || async {
            ensure!(created.is_some_and(|created| Timestamp::now() > created + SignedDuration::from_secs(1)));
            Ok(())
        })
        .await?;
        fixture.created(&of_item("newer")).await?;
        ends(&fixture, "older", of, "Superseded").await?;
        let newer = fixture.tasks().get("newer").await?;
        ensure!(
            !newer.annotations().contains_key(keys::CANCEL),
            "{of:?}: the newer one as well"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_that_still_goes_on_when_the_next_is_due_ends() -> anyhow::Result<()> {
    in_every_state(|of| async move {
        let section = json!({"onRetrigger": "Cancel", "gracePeriodSeconds": 5});
        let fixture = fixture_in(of, "cron", &section).await?;
        fixture
            .spawner("nightly", &json!({"cron": {"schedule": "* * * * *"}}), &json!({}))
            .await?;
        // One that is created late in a minute is superseded by the next before it gets anywhere.
        eventually("a minute has just begun", Duration::from_mins(2), || async {
            ensure!(Timestamp::now().as_second() % 60 < 20);
            Ok(())
        })
        .await?;
        let mut tick = task_of(of, "nightly-1");
        tick["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "nightly"});
        fixture.created(&tick).await?;
        let made = reach(&fixture, "nightly-1", of).await?;
        let created = made.creation_timestamp().map(|time| time.0);
        eventually("the next run is due", Duration::from_mins(2), || async {
            let minute = |time: Timestamp| time.as_second() / 60;
            ensure!(created.is_some_and(|created| minute(Timestamp::now()) > minute(created)));
            Ok(())
        })
        .await?;
        ends(&fixture, "nightly-1", of, "Schedule").await?;
        if of != State::Finished {
            let task = fixture.tasks().get("nightly-1").await?;
            ensure!(cancel_state(&task) == "Cancelled", "{:?}", task.annotations());
            let deadline: Timestamp = task.annotations()[keys::CANCEL_DEADLINE].parse()?;
            ensure!(
                deadline.as_second() % 60 == 0,
                "{deadline}: not when the next run is due"
            );
        }
        Ok(())
    })
    .await
}
