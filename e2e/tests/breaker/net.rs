//! Denial, the safety net below the tombstone: Tasks that a spawner does not create.

use std::{collections::BTreeSet, sync::Mutex};

use anyhow::ensure;
use futures::future::join_all;
use kube::{ResourceExt as _, api::PostParams};
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, eventually, failures};

use crate::support::{governed, limit, task_of_item};

const ROUNDS: usize = 10;

#[tokio::test]
async fn a_task_of_a_user_is_denied_with_the_reason_and_the_command_that_resets() -> anyhow::Result<()> {
    let fixture = governed("hand", limit(1)).await?;
    fixture.created(&task_of_item("first", "epic")).await?;
    fixture.fail("first").await?;
    let item = fixture.await_open("epic").await?;
    let told = fixture.create(&task_of_item("second", "epic")).await?.stderr_failed()?;
    for part in [
        "item epic failed once (limit 1)",
        "cost $0.25",
        &format!("taskgate reset {}", item.name_any()),
    ] {
        ensure!(told.contains(part), "{told}");
    }
    fixture.dry_run(&task_of_item("other", "story")).await.map(drop)
}

/// Creates that race are admitted together, as none of them is stored when the others are evaluated. Of their Jobs no more
/// run than the limit allows.
#[tokio::test]
async fn of_creates_that_race_at_the_limit_no_more_agents_run_than_it() -> anyhow::Result<()> {
    let fixture = governed("race", limit(2)).await?;
    for round in 0..ROUNDS {
        let name = |index: usize| format!("race-{round}-{index}");
        let tasks: Vec<_> = (0..8)
            .map(|index| task_of_item(&name(index), &format!("raced-{round}")))
            .collect();
        let made = join_all(tasks.into_iter().map(|task| {
            let api = fixture.tasks();
            async move {
                api.create(&PostParams::default(), &serde_json::from_value(task)?)
                    .await
                    .map_err(anyhow::Error::from)
            }
        }));
        let created: Vec<_> = made.await.into_iter().flatten().map(|task| task.name_any()).collect();
        // Every Task that was admitted has a Job, which runs, or was stopped; then the Task may be gone already.
        let ran = Mutex::new(BTreeSet::new());
        eventually("every Job runs or was stopped", PATIENCE, || async {
            for name in &created {
                let Some(job) = fixture.jobs().get_opt(name).await? else {
                    let task = fixture.tasks().get_opt(name).await?;
                    ensure!(task.is_none(), "{name} has no Job");
                    continue;
                };
                let suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
                let conditions = job.status.and_then(|status| status.conditions).unwrap_or_default();
                let failed = conditions.iter().any(|condition| condition.type_ == "Failed");
                if !suspended {
                    ran.lock().expect("nothing panics with it").insert(name.clone());
                }
                ensure!(failed || !suspended, "{name} is suspended and not failed");
            }
            Ok(())
        })
        .await?;
        let settled = ran.into_inner().expect("nothing panics with it").len();
        println!("round {round}: {} Tasks admitted, {settled} Jobs ran", created.len());
        ensure!((1..=2).contains(&settled), "{settled} of {} ran", created.len());
    }
    Ok(())
}

#[tokio::test]
async fn observe_changes_nothing_and_records() -> anyhow::Result<()> {
    let spec = json!({"mode": "Observe", "failurePolicy": {"maxRetriesPerItem": 1}});
    let fixture = governed("observe", spec).await?;
    fixture.created(&task_of_item("first", "epic")).await?;
    fixture.fail("first").await?;
    fixture
        .await_work_item("epic", "has a failure", |item| failures(item) == 1)
        .await?;
    let task = fixture.tasks().get("first").await?;
    ensure!(task.finalizers().iter().all(|finalizer| finalizer != keys::ACCOUNTING));
    ensure!(!task.annotations().contains_key(keys::RECORDED));
    fixture.created(&task_of_item("second", "epic")).await.map(drop)
}

#[tokio::test]
async fn warn_warns() -> anyhow::Result<()> {
    let fixture = governed("warn", limit(1)).await?;
    fixture.created(&task_of_item("first", "epic")).await?;
    fixture.fail("first").await?;
    fixture.await_open("epic").await?;
    fixture
        .policy(json!({"mode": "Warn", "failurePolicy": {"maxRetriesPerItem": 1}}))
        .await?;
    eventually("the creator is warned", PATIENCE, || async {
        let output = fixture.create_dry_run(&task_of_item("second", "epic")).await?;
        let warned = output
            .warnings()
            .iter()
            .any(|warning| warning.contains("would deny: item epic"));
        ensure!(warned, "{:?}", output.warnings());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_task_that_was_there_before_the_policy_is_adopted() -> anyhow::Result<()> {
    let fixture = governed("adopt", json!({})).await?;
    fixture.created(&task_of_item("old", "epic")).await?;
    fixture.policy(limit(1)).await?;
    fixture
        .await_task("old", "is adopted", |task| {
            task.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING)
        })
        .await?;
    fixture.fail("old").await?;
    fixture.await_open("epic").await.map(drop)
}

#[tokio::test]
async fn a_dry_run_is_not_counted() -> anyhow::Result<()> {
    let fixture = governed("dry", limit(1)).await?;
    for _ in 0..3 {
        fixture.dry_run(&task_of_item("first", "epic")).await?;
        fixture.dry_run(&task_of_item("second", "epic")).await?;
    }
    fixture.created(&task_of_item("first", "epic")).await.map(drop)
}

#[tokio::test]
async fn the_metrics_of_the_proposal_are_there() -> anyhow::Result<()> {
    let fixture = governed("metrics", limit(1)).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    fixture.fail("fixer-42").await?;
    fixture.await_open("42").await?;
    let metrics = fixture.gate.metrics().await?;
    let labels = [("namespace", fixture.ns.name()), ("spawner", "fixer")];
    let skipped = metrics.value("kelos_spawner_items_circuit_broken_total", &labels);
    ensure!(skipped == Some(1.0), "{skipped:?}");
    Ok(())
}
