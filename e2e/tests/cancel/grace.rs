//! A grace period: the agent is warned before it ends.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use kube::{ResourceExt as _, api::ListParams};
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, eventually, never};

use crate::support::{annotate, await_cancelled, cancel_state, cancelled_condition, start, task, task_events};

fn cancel(seconds: u32) -> [String; 2] {
    [
        format!("{}=soon", keys::CANCEL),
        format!("{}={seconds}", keys::CANCEL_GRACE),
    ]
}

#[tokio::test]
async fn task_job_and_pods_carry_the_deadline_and_it_is_kept() -> anyhow::Result<()> {
    let fixture = start("grace").await?;
    fixture.run(&task("graced")).await?;
    let [why, grace] = cancel(6);
    annotate(&fixture, "ann", "graced", &[&why, &grace])
        .await?
        .stdout_ok()?;
    let announced = fixture
        .await_task("graced", "is announced", |task| cancel_state(task) == "Announced")
        .await?;
    let deadline = announced
        .annotations()
        .get(keys::CANCEL_DEADLINE)
        .context("a deadline")?
        .clone();
    fixture
        .await_job("graced", "knows the deadline", |job| {
            job.annotations().get(keys::CANCEL_DEADLINE) == Some(&deadline)
        })
        .await?;
    let pods = fixture.pods().list(&ListParams::default()).await?;
    ensure!(!pods.items.is_empty());
    ensure!(
        pods.iter()
            .all(|pod| pod.annotations().get(keys::CANCEL_DEADLINE) == Some(&deadline))
    );
    let cancelled = await_cancelled(&fixture, "graced").await?;
    let ended = cancelled.current().completion_time.context("an end")?.0;
    ensure!(
        ended >= deadline.parse::<Timestamp>()?,
        "ended at {ended}, before {deadline}"
    );
    ensure!(cancelled_condition(&cancelled)["status"] == "True");
    ensure!(task_events(&fixture, "graced", "CancelAnnounced").await?.len() == 1);
    Ok(())
}

#[tokio::test]
async fn withdrawn_in_time_nothing_changes() -> anyhow::Result<()> {
    let fixture = start("withdrawn").await?;
    fixture.run(&task("spared")).await?;
    let [why, grace] = cancel(5);
    annotate(&fixture, "ann", "spared", &[&why, &grace])
        .await?
        .stdout_ok()?;
    fixture
        .await_job("spared", "knows the deadline", |job| {
            job.annotations().contains_key(keys::CANCEL_DEADLINE)
        })
        .await?;
    annotate(&fixture, "ann", "spared", &[&format!("{}-", keys::CANCEL)])
        .await?
        .stdout_ok()?;
    fixture
        .await_task("spared", "bears nothing of it", |task| {
            keys::CANCELLATION
                .iter()
                .all(|key| !task.annotations().contains_key(*key))
        })
        .await?;
    eventually("neither do Job and pods", PATIENCE, || async {
        let job = fixture.jobs().get("spared").await?;
        let pods = fixture.pods().list(&ListParams::default()).await?;
        let mut all = pods
            .iter()
            .map(kube::ResourceExt::annotations)
            .chain([job.annotations()]);
        ensure!(all.all(|annotations| !annotations.contains_key(keys::CANCEL_DEADLINE)));
        Ok(())
    })
    .await?;
    never("the Task is stopped", Duration::from_secs(7), || async {
        let task = fixture.tasks().get("spared").await?;
        Ok((task.phase() != "Running").then(|| task.phase().to_owned()))
    })
    .await?;
    fixture.succeed("spared").await
}

#[tokio::test]
async fn a_task_that_ends_in_time_is_not_cancelled() -> anyhow::Result<()> {
    let fixture = start("intime").await?;
    fixture.run(&task("quick")).await?;
    let [why, grace] = cancel(3600);
    annotate(&fixture, "ann", "quick", &[&why, &grace]).await?.stdout_ok()?;
    fixture
        .await_task("quick", "is announced", |task| cancel_state(task) == "Announced")
        .await?;
    fixture.succeed("quick").await?;
    let task = fixture
        .await_task("quick", "is too late", |task| cancel_state(task) == "TooLate")
        .await?;
    ensure!(task.phase() == "Succeeded" && cancelled_condition(&task).is_null());
    ensure!(task_events(&fixture, "quick", "CancelTooLate").await?.len() == 1);
    Ok(())
}
