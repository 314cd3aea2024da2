//! Tasks without a spawner, beside a stand-in of Kelos.

use anyhow::ensure;
use kelos_standin::{Outcome, types::Task};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_e2e::{Fixture, KelosFixture, KelosNamespace, Namespace, merged, never, task};
use tokio::time::Duration;

use crate::support::{await_retry, await_retry_condition, quick, retry_condition, shared};

/// A namespace with Kelos and a policy with this spec.
async fn start_kelos(hint: &str, spec: Value) -> anyhow::Result<KelosFixture<'static>> {
    let (cp, gate) = shared().await?;
    let ns = KelosNamespace::start(cp.namespace(hint).await?).await?;
    ns.apply_policy("retry", &spec).await?;
    Ok(Fixture { cp, gate, ns })
}

/// Creates a Task with this metadata and further fields of its spec.
async fn create(ns: &Namespace, metadata: Value, spec: Value) -> anyhow::Result<()> {
    let spec = merged(json!({"prompt": "do it"}), &spec);
    let more = json!({"metadata": metadata, "spec": spec});
    ns.created(&merged(task("t"), &more)).await.map(drop)
}

/// The Task, once it runs as this attempt.
async fn await_running(ns: &Namespace, name: &str, attempt: Option<&str>) -> anyhow::Result<Task> {
    ns.await_task(name, &format!("runs as {attempt:?}"), |task| {
        let number = task.annotations().get("foreman.llmkube.dev/attempt");
        task.phase() == "Running" && number.map(String::as_str) == attempt
    })
    .await
}

/// Lets the Task fail.
async fn fail(ns: &KelosNamespace, name: &str) -> anyhow::Result<()> {
    let outcome = Outcome::failed_at_once().with_usage("0.25", 10, 5);
    ns.finish(name, outcome).await
}

fn retry(section: Value) -> Value {
    json!({"retry": quick(section)})
}

#[tokio::test]
async fn a_task_without_a_spawner_is_run_again_up_to_its_limit() -> anyhow::Result<()> {
    let kelos = start_kelos(
        "task",
        retry(json!({"maxAttempts": 2, "overrides": {"task": {"model": "bigger"}}})),
    )
    .await?;
    create(&kelos, json!({"name": "t"}), json!({"ttlSecondsAfterFinished": 1})).await?;
    let first = await_running(&kelos, "t", None).await?;
    fail(&kelos, "t").await?;
    let second = await_running(&kelos, "t", Some("2")).await?;
    ensure!(second.uid() != first.uid());
    ensure!(serde_json::to_value(&second)?["spec"]["model"] == "bigger");
    fail(&kelos, "t").await?;
    await_retry_condition(&kelos, "Task/t", "MaxAttemptsReached").await?;
    // Kelos may write the cost of a run some seconds after its end.
    await_retry(&kelos, "Task/t", "knows what both cost", |status, _| {
        status.attempts.len() == 2 && status.total_cost_usd.as_deref() == Some("0.50")
    })
    .await?;
    // Its TTL does not delete the tombstone.
    never("the tombstone goes", Duration::from_secs(4), || async {
        let task = kelos.tasks().get("t").await?;
        let unchanged = task.uid() == second.uid() && task.metadata.deletion_timestamp.is_none();
        Ok((!unchanged).then_some("changed"))
    })
    .await
}

#[tokio::test]
async fn breaker_and_retry_count_together() -> anyhow::Result<()> {
    let mut spec = retry(json!({"maxAttempts": 3}));
    spec["failurePolicy"] = json!({"maxRetriesPerItem": 2});
    let kelos = start_kelos("both", spec).await?;
    let metadata = json!({"name": "t", "annotations": {"taskgate.dev/item": "epic-1"}});
    create(&kelos, metadata, json!({"ttlSecondsAfterFinished": 1})).await?;
    await_running(&kelos, "t", None).await?;
    fail(&kelos, "t").await?;
    await_running(&kelos, "t", Some("2")).await?;
    let item = await_retry(&kelos, "epic-1", "has one failure", |status, _| {
        status.attempts.len() == 1
    })
    .await?;
    let status = item.status.unwrap_or_default();
    ensure!(
        status.consecutive_failures == 1 && status.last_reset.is_none(),
        "{status:?}"
    );
    fail(&kelos, "t").await?;
    // The breaker's limit holds for retries as for any other Task.
    let item = await_retry_condition(&kelos, "epic-1", "SuccessorRefused").await?;
    let status = item.status.unwrap_or_default();
    ensure!(
        retry_condition(&status).1.contains("failed 2 times in a row (limit 2)"),
        "{status:?}"
    );
    ensure!(
        status.consecutive_failures == 2 && status.attempts.len() == 2,
        "{status:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_prompt_has_the_reason_of_the_last_failure_once() -> anyhow::Result<()> {
    let kelos = start_kelos("prompt", retry(json!({"maxAttempts": 3, "feedback": true}))).await?;
    create(&kelos, json!({"name": "t"}), json!({})).await?;
    for (attempt, next, error) in [(None, "2", "the first reason"), (Some("2"), "3", "the second reason")] {
        await_running(&kelos, "t", attempt).await?;
        let outcome = Outcome::failed_at_once().with_outputs([&format!("error: {error}"), "cost-usd: 0.25"]);
        kelos.finish("t", outcome).await?;
        let told = serde_json::to_value(await_running(&kelos, "t", Some(next)).await?)?;
        let prompt = told["spec"]["prompt"].as_str().unwrap_or_default();
        ensure!(prompt.starts_with("do it\n") && prompt.contains(error), "{prompt}");
        ensure!(
            prompt.matches("## Why the previous run failed").count() == 1,
            "{prompt}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_cancelled_task_is_not_run_again() -> anyhow::Result<()> {
    let kelos = start_kelos("cancelled", retry(json!({"maxAttempts": 3}))).await?;
    create(&kelos, json!({"name": "t"}), json!({})).await?;
    let first = await_running(&kelos, "t", None).await?;
    let cancel = ["annotate", "tasks.kelos.dev", "t", "taskgate.dev/cancel=enough"];
    kelos.kubectl(cancel).await?.stdout_ok()?;
    kelos
        .await_task("t", "is cancelled", |task| {
            task.annotations().get("taskgate.dev/cancel-state").map(String::as_str) == Some("Cancelled")
        })
        .await?;
    never("it runs again", Duration::from_secs(3), || async {
        let unchanged = kelos.tasks().get("t").await?.uid() == first.uid();
        Ok((!unchanged).then_some("changed"))
    })
    .await
}
