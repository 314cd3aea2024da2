//! The policy fields of a TaskSpawner: which policy wins, and what is refused.

use anyhow::ensure;
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_e2e::condition;

use crate::support::{await_cycle, policy, spawner, start};

#[tokio::test]
async fn the_fields_of_a_spawner_win_and_follow_every_change() -> anyhow::Result<()> {
    let fixture = start("fields").await?;
    fixture
        .policy(json!({"failurePolicy": {"maxRetriesPerItem": 5}}))
        .await?;
    let own = json!({"failurePolicy": {"maxRetriesPerItem": 1}, "taskTemplate": {"ttlSecondsAfterFinished": 1}});
    fixture.created(&spawner("fixer", &own)).await?;
    await_cycle(&fixture, "fixer").await?;
    fixture.repo().issue(42);
    let first = fixture.fail("fixer-42").await?;
    fixture.await_open("42").await?;
    let explanation = fixture.cp.explain(fixture.name(), "task/fixer-42").await?;
    let text = serde_json::to_string(&explanation)?;
    ensure!(text.contains("failurePolicy by TaskSpawner/fixer"), "{text}");
    // A higher limit allows the next Task at once.
    let patch = json!({"spec": policy(2)}).to_string();
    fixture
        .kubectl(["patch", "taskspawner", "fixer", "--type=merge", "-p", &patch])
        .await?
        .stdout_ok()?;
    let second = fixture
        .await_next_task("fixer-42", &first)
        .await?
        .uid()
        .unwrap_or_default();
    fixture.fail("fixer-42").await?;
    fixture.await_open("42").await?;
    // Without the fields, the TaskPolicy applies.
    let patch = json!({"spec": {"failurePolicy": null}}).to_string();
    fixture
        .kubectl(["patch", "taskspawner", "fixer", "--type=merge", "-p", &patch])
        .await?
        .stdout_ok()?;
    fixture.await_next_task("fixer-42", &second).await?;
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn a_field_that_cannot_be_applied_is_denied_with_its_path() -> anyhow::Result<()> {
    let fixture = start("wrong").await?;
    for (spec, message) in [
        (
            json!({"failurePolicy": {"itemKey": "{{ nothing }}"}}),
            "spec.failurePolicy.itemKey: ",
        ),
        (
            json!({"taskTemplate": {"queueName": "{{ open"}}),
            "spec.taskTemplate.queueName: ",
        ),
    ] {
        let denied = fixture.create(&spawner("fixer", &spec)).await?.stderr_failed()?;
        ensure!(denied.contains(message), "{denied}");
    }
    // What the schema can express, the schema refuses.
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": -1}});
    let invalid = fixture.create(&spawner("fixer", &spec)).await?.stderr_failed()?;
    ensure!(invalid.contains("should be greater than or equal to 0"), "{invalid}");
    Ok(())
}

#[tokio::test]
async fn a_cancelled_task_has_the_requester_in_its_status() -> anyhow::Result<()> {
    let fixture = start("by").await?;
    let own = json!({"cancellationPolicy": {"onSourceRemoved": "Cancel"}});
    fixture.created(&spawner("fixer", &own)).await?;
    await_cycle(&fixture, "fixer").await?;
    fixture.repo().issue(42);
    fixture.await_task_phase("fixer-42", "Running").await?;
    fixture.repo().issue(42).close();
    let task = fixture
        .await_task("fixer-42", "names the requester", |task| {
            task.status
                .as_ref()
                .is_some_and(|status| !status.cancelled_by.is_empty())
        })
        .await?;
    let by = task.status.as_ref().map(|status| status.cancelled_by.as_str());
    ensure!(by == Some("spawner:fixer"), "{task:?}");
    // An unmodified Kelos would create the Job again of a Task with a phase that it does not know.
    ensure!(
        task.phase() == "Failed" && condition(&task, "Cancelled").is_some(),
        "{task:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_jobs_of_a_spawner_wait_in_its_queue() -> anyhow::Result<()> {
    let fixture = start("queue").await?;
    fixture
        .created(&spawner("fixer", &json!({"taskTemplate": {"queueName": "agents"}})))
        .await?;
    await_cycle(&fixture, "fixer").await?;
    fixture.repo().issue(42);
    let job = fixture
        .await_job("fixer-42", "is suspended", |job| {
            job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
        })
        .await?;
    ensure!(
        job.labels().get("kueue.x-k8s.io/queue-name").map(String::as_str) == Some("agents"),
        "{job:?}"
    );
    Ok(())
}
