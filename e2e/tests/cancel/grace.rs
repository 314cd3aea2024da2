//! The agent is warned before.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use kube::{ResourceExt as _, api::ListParams};
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, await_object, eventually, never};

use crate::world::{World, condition, state, task};

fn cancel(seconds: u32) -> [String; 2] {
    [
        format!("{}=soon", keys::CANCEL),
        format!("{}={seconds}", keys::CANCEL_GRACE),
    ]
}

#[tokio::test]
async fn the_deadline_stands_on_task_job_and_pods_and_is_kept() -> anyhow::Result<()> {
    let world = World::start("grace").await?;
    world.run(&task("graced")).await?;
    let [why, grace] = cancel(6);
    world.annotate("ann", "graced", &[&why, &grace]).await?.stdout_ok()?;
    let announced = world
        .await_task("graced", "is announced", |task| state(task) == "Announced")
        .await?;
    let deadline = announced
        .annotations()
        .get(keys::CANCEL_DEADLINE)
        .context("a deadline")?
        .clone();
    await_object(&world.jobs(), "graced", "knows the deadline", |job| {
        job.annotations().get(keys::CANCEL_DEADLINE) == Some(&deadline)
    })
    .await?;
    let pods = world.pods().list(&ListParams::default()).await?;
    ensure!(!pods.items.is_empty());
    ensure!(
        pods.iter()
            .all(|pod| pod.annotations().get(keys::CANCEL_DEADLINE) == Some(&deadline))
    );
    let cancelled = world.await_cancelled("graced").await?;
    let ended = cancelled.current().completion_time.context("an end")?.0;
    ensure!(
        ended >= deadline.parse::<Timestamp>()?,
        "ended at {ended}, before {deadline}"
    );
    ensure!(condition(&cancelled)["status"] == "True");
    ensure!(world.events("graced", "CancelAnnounced").await?.len() == 1);
    Ok(())
}

#[tokio::test]
async fn withdrawn_in_time_nothing_has_happened() -> anyhow::Result<()> {
    let world = World::start("withdrawn").await?;
    world.run(&task("spared")).await?;
    let [why, grace] = cancel(5);
    world.annotate("ann", "spared", &[&why, &grace]).await?.stdout_ok()?;
    await_object(&world.jobs(), "spared", "knows the deadline", |job| {
        job.annotations().contains_key(keys::CANCEL_DEADLINE)
    })
    .await?;
    world
        .annotate("ann", "spared", &[&format!("{}-", keys::CANCEL)])
        .await?
        .stdout_ok()?;
    world
        .await_task("spared", "bears nothing of it", |task| {
            keys::CANCELLATION
                .iter()
                .all(|key| !task.annotations().contains_key(*key))
        })
        .await?;
    eventually("neither do Job and pods", PATIENCE, || async {
        let job = world.jobs().get("spared").await?;
        let pods = world.pods().list(&ListParams::default()).await?;
        let mut all = pods
            .iter()
            .map(kube::ResourceExt::annotations)
            .chain([job.annotations()]);
        ensure!(all.all(|annotations| !annotations.contains_key(keys::CANCEL_DEADLINE)));
        Ok(())
    })
    .await?;
    never("the Task is stopped", Duration::from_secs(7), || async {
        let task = world.tasks().get("spared").await?;
        Ok((task.phase() != "Running").then(|| task.phase().to_owned()))
    })
    .await?;
    world.succeed("spared").await
}

#[tokio::test]
async fn who_ends_in_time_is_not_cancelled() -> anyhow::Result<()> {
    let world = World::start("intime").await?;
    world.run(&task("quick")).await?;
    let [why, grace] = cancel(3600);
    world.annotate("ann", "quick", &[&why, &grace]).await?.stdout_ok()?;
    world
        .await_task("quick", "is announced", |task| state(task) == "Announced")
        .await?;
    world.succeed("quick").await?;
    let task = world
        .await_task("quick", "is too late", |task| state(task) == "TooLate")
        .await?;
    ensure!(task.phase() == "Succeeded" && condition(&task).is_null());
    ensure!(world.events("quick", "CancelTooLate").await?.len() == 1);
    Ok(())
}
