//! What policies cancel by themselves, in every state that a Task can be in.

use std::time::Duration;

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use kelos_standin::{Fault, types::Task};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, await_object, eventually, never};

use crate::world::{World, condition, state, task, task_with};

/// The states that a Task can be in when its reason goes.
const STATES: [State; 4] = [State::Waiting, State::Queued, State::Running, State::Finished];

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// For its branch.
    Waiting,
    /// Its Job is suspended in a queue.
    Queued,
    Running,
    /// It ended a moment ago.
    Finished,
}

fn policy(of: State, section: &Value) -> Value {
    let mut policy = json!({"cancellationPolicy": section});
    if of == State::Queued {
        policy["queueName"] = "agents".into();
    }
    policy
}

/// A world with a spawner for issues, whose Task for issue 42 is in this state.
async fn polled(of: State, section: &Value) -> anyhow::Result<(World<'static>, Task)> {
    let world = World::governed("polled", policy(of, section)).await?;
    let branch = json!({"branch": "main", "ttlSecondsAfterFinished": 3600});
    if of == State::Waiting {
        world.run(&task_with("holder", &branch)).await?;
    }
    world.repo().issue(42);
    let when = json!({"githubIssues": {
        "pollInterval": "1s", "excludeLabels": ["wontfix"], "commentPolicy": {"triggerComment": "/again"},
    }});
    world
        .repo()
        .issue(42)
        .comment_at("ann", "/again", Timestamp::now() - SignedDuration::from_secs(60));
    let extra = if of == State::Waiting { branch } else { json!({}) };
    world.spawner("fixer", &when, &extra).await?;
    let task = reach(&world, "fixer-42", of).await?;
    Ok((world, task))
}

async fn reach(world: &World<'_>, name: &str, of: State) -> anyhow::Result<Task> {
    let phase = match of {
        State::Waiting => "Waiting",
        State::Queued => "Pending",
        State::Running | State::Finished => "Running",
    };
    let task = world.await_task(name, phase, |task| task.phase() == phase).await?;
    if of == State::Finished {
        world.succeed(name).await?;
    }
    Ok(task)
}

/// The Task ends as cancelled by its spawner because of this; or, where it had ended before, stays as it was.
async fn ends(world: &World<'_>, name: &str, of: State, trigger: &str) -> anyhow::Result<()> {
    if of == State::Finished {
        return never("it is cancelled", Duration::from_secs(5), || async {
            let task = world.tasks().get(name).await?;
            Ok(task.annotations().get(keys::CANCEL).cloned())
        })
        .await;
    }
    let task = world.await_cancelled(name).await?;
    let told = condition(&task);
    ensure!(told["reason"] == trigger && told["status"] == "True", "{of:?}: {told}");
    ensure!(world.events(name, "TaskCancelled").await?.len() == 1, "{of:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_closed_is_cancelled_in_every_state() -> anyhow::Result<()> {
    for of in STATES {
        let (world, _) = polled(of, &json!({"onSourceRemoved": "Cancel"})).await?;
        world.repo().issue(42).close();
        ends(&world, "fixer-42", of, "SourceRemoved").await?;
        if of != State::Finished {
            let task = world.tasks().get("fixer-42").await?;
            ensure!(
                condition(&task)["message"] == "Cancelled by spawner:fixer: #42 is closed",
                "{}",
                condition(&task)
            );
        }
        ensure!(world.failed_cycles("fixer") == 0, "{of:?}");
    }
    Ok(())
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

/// How many Tasks were ever made for the item.
async fn made(world: &World<'_>, mark: taskgate_e2e::Marker) -> anyhow::Result<usize> {
    let made = world.cp.audit().since(mark).await?.into_iter().filter(|event| {
        let object = &event.object_ref;
        let stored = event.response_status.as_ref().is_some_and(|status| status.code == 201);
        let of_item = object.name == "fixer-42" && object.namespace == world.ns.name();
        event.verb == "create" && object.resource == "tasks" && object.subresource.is_empty() && of_item && stored
    });
    Ok(made.count())
}

#[tokio::test]
async fn who_asks_again_gets_a_new_task_exactly_once() -> anyhow::Result<()> {
    for of in [State::Waiting, State::Queued, State::Running] {
        let mark = crate::world::plane().await?.audit().mark()?;
        let (world, old) = polled(of, &json!({"onRetrigger": "Cancel"})).await?;
        // The tracker's clock is ahead.
        let later = Timestamp::now() + SignedDuration::from_secs(6);
        world.repo().issue(42).comment_at("ann", "/again", later);
        let new = world
            .await_task("fixer-42", "is another one", |task| task.uid() != old.uid())
            .await?;
        let phase = if of == State::Waiting {
            "Waiting"
        } else if of == State::Queued {
            "Pending"
        } else {
            "Running"
        };
        world
            .await_task("fixer-42", "is where the old one was", |task| {
                task.uid() == new.uid() && task.phase() == phase
            })
            .await?;
        let events = world.events("fixer-42", "TaskCancelled").await?;
        ensure!(events.len() == 1, "{of:?}: {events:?}");
        never("a third Task", Duration::from_secs(8), || async {
            let made = made(&world, mark).await?;
            Ok((made > 2).then_some(made))
        })
        .await?;
        ensure!(world.failed_cycles("fixer") == 0, "{of:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_new_head_gets_a_new_task_exactly_once() -> anyhow::Result<()> {
    let world = World::governed("head", json!({"cancellationPolicy": {"onRetrigger": "Cancel"}})).await?;
    let mark = world.cp.audit().mark()?;
    world.repo().pull(42).push(&"a".repeat(40));
    let when = json!({"githubPullRequests": {"pollInterval": "1s"}});
    world.spawner("fixer", &when, &json!({})).await?;
    let old = reach(&world, "fixer-42", State::Running).await?;
    world
        .await_task("fixer-42", "has a head to compare with", |task| {
            task.annotations().contains_key(keys::SOURCE_HEAD)
        })
        .await?;
    world.repo().pull(42).push(&"b".repeat(40));
    world
        .await_task("fixer-42", "is another one that runs", |task| {
            task.uid() != old.uid() && task.phase() == "Running"
        })
        .await?;
    never("a third Task", Duration::from_secs(5), || async {
        let made = made(&world, mark).await?;
        Ok((made > 2).then_some(made))
    })
    .await?;
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn a_newer_task_of_the_item_ends_the_older_one_in_every_state() -> anyhow::Result<()> {
    for of in STATES {
        let world = World::governed("newer", policy(of, &json!({"onRetrigger": "Cancel"}))).await?;
        let item = |mut task: Value| {
            task["metadata"]["annotations"] = json!({"taskgate.dev/item": "epic"});
            task
        };
        let branch = json!({"branch": "main"});
        if of == State::Waiting {
            world.run(&task_with("holder", &branch)).await?;
            world
                .create(&item(task_with("older", &branch)), false)
                .await?
                .stdout_ok()?;
        } else {
            world.create(&item(task("older")), false).await?.stdout_ok()?;
        }
        reach(&world, "older", of).await?;
        // Times of creation have whole seconds.
        let created = world
            .tasks()
            .get("older")
            .await?
            .creation_timestamp()
            .map(|time| time.0);
        eventually("a second has passed", PATIENCE, || async {
            ensure!(created.is_some_and(|created| Timestamp::now() > created + SignedDuration::from_secs(1)));
            Ok(())
        })
        .await?;
        world.create(&item(task("newer")), false).await?.stdout_ok()?;
        ends(&world, "older", of, "Superseded").await?;
        let newer = world.tasks().get("newer").await?;
        ensure!(!newer.annotations().contains_key(keys::CANCEL));
    }
    Ok(())
}

#[tokio::test]
async fn a_run_that_still_goes_on_when_the_next_is_due_ends() -> anyhow::Result<()> {
    let mut worlds = Vec::new();
    for of in [State::Waiting, State::Queued, State::Running] {
        let section = json!({"onRetrigger": "Cancel", "gracePeriodSeconds": 5});
        let world = World::governed("cron", policy(of, &section)).await?;
        let branch = json!({"branch": "main"});
        let mut tick = task("nightly-1");
        if of == State::Waiting {
            world.run(&task_with("holder", &branch)).await?;
            tick = task_with("nightly-1", &branch);
        }
        world
            .spawner("nightly", &json!({"cron": {"schedule": "* * * * *"}}), &json!({}))
            .await?;
        tick["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "nightly"});
        world.create(&tick, false).await?.stdout_ok()?;
        worlds.push((of, world));
    }
    for (of, world) in &worlds {
        eventually("the next run is due", Duration::from_mins(2), || async {
            let task = world.tasks().get("nightly-1").await?;
            ensure!(state(&task) == "Cancelled", "{:?}", task.annotations());
            Ok(())
        })
        .await?;
        ends(world, "nightly-1", *of, "Schedule").await?;
        let task = world.tasks().get("nightly-1").await?;
        let deadline: Timestamp = task.annotations()[keys::CANCEL_DEADLINE].parse()?;
        ensure!(
            deadline.as_second() % 60 == 0,
            "{deadline}: not when the next run is due"
        );
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
