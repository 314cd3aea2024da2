//! `examples/proposals/`: each proposal's YAML does what its text says. Only what a test cannot wait for is changed: intervals, TTLs
//! and the grace period.

use anyhow::{Context as _, ensure};
use kelos_standin::types::Task;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_e2e::{KELOS, KelosFixture, condition, failures, merged};

use crate::support::{await_cycle, await_spawner, start};

const FAILURES: &str = include_str!("../../../examples/proposals/000/spawner.yaml");
const CANCELLATION: &str = include_str!("../../../examples/proposals/001/spawner.yaml");
const QUEUES: &str = include_str!("../../../examples/proposals/002/spawners.yaml");
const RETRY: &str = include_str!("../../../examples/proposals/003/policy.yaml");
const METADATA: &str = include_str!("../../../examples/proposals/004/spawner.yaml");
const METADATA_POLICY: &str = include_str!("../../../examples/proposals/004/policy.yaml");

/// The documents of an example, in the namespace of the test.
fn documents(fixture: &KelosFixture<'_>, text: &str) -> anyhow::Result<Vec<Value>> {
    let documents = text.split("\n---\n").map(|text| -> anyhow::Result<Value> {
        let object: Value = serde_saphyr::from_str(text)?;
        Ok(merged(object, &json!({"metadata": {"namespace": fixture.name()}})))
    });
    documents.collect()
}

/// Applies the one document of an example, with `more` fields, and its Workspace.
async fn apply(fixture: &KelosFixture<'_>, text: &str, more: &Value) -> anyhow::Result<Value> {
    let object = documents(fixture, text)?
        .into_iter()
        .next()
        .context("an example has a document")?;
    apply_object(fixture, &merged(object, more)).await
}

async fn apply_object(fixture: &KelosFixture<'_>, object: &Value) -> anyhow::Result<Value> {
    if let Some(name) = object.pointer("/spec/taskTemplate/workspaceRef/name") {
        let repo = fixture.repo().clone_url();
        let workspace =
            json!({"apiVersion": KELOS, "kind": "Workspace", "metadata": {"name": name}, "spec": {"repo": repo}});
        fixture.apply_yaml(&workspace.to_string()).await?;
    }
    let created = fixture.created(object).await?;
    if object["kind"] == "TaskSpawner" {
        await_cycle(fixture, object["metadata"]["name"].as_str().unwrap_or_default()).await?;
    }
    Ok(created)
}

/// Names the spawner's own cancellation: its Task, once it runs.
async fn running(fixture: &KelosFixture<'_>, task: &str) -> anyhow::Result<Task> {
    fixture.await_task_phase(task, "Running").await
}

#[tokio::test]
async fn proposal_000_stops_an_item_after_three_failures_until_a_user_resets_it() -> anyhow::Result<()> {
    let fixture = start("p000").await?;
    let soon = json!({"spec": {"when": {"githubIssues": {"pollInterval": "1s"}}, "taskTemplate": {"ttlSecondsAfterFinished": 1}}});
    apply(&fixture, FAILURES, &soon).await?;
    let issue = fixture.repo().issue(42);
    issue.labels(["agent-ready"]);
    let mut failed = String::new();
    for _ in 0..3 {
        fixture.await_next_task("my-spawner-42", &failed).await?;
        failed = fixture.fail("my-spawner-42").await?;
    }
    fixture.await_open("42").await?;
    let listed = fixture
        .await_spawner_condition("my-spawner", "ItemsCircuitBroken", "True")
        .await?;
    ensure!(
        listed["reason"] == "MaxRetriesExceeded" && listed["message"] == "1 item skipped due to max retries: 42",
        "{listed}"
    );
    await_spawner(&fixture, "my-spawner", "has the failed item", |spawner| {
        spawner["status"]["failedItems"]["42"]["consecutiveFailures"] == 3
    })
    .await?;
    // An edit of the issue resets it: resetOnChange.
    fixture
        .await_work_item("42", "has the content as it is now", |item| {
            item.status.as_ref().is_some_and(|status| status.content_hash.is_some())
        })
        .await?;
    issue.title("What is meant is the other page");
    fixture.await_next_task("my-spawner-42", &failed).await?;
    fixture
        .await_work_item("42", "is reset", |item| failures(item) == 0)
        .await?;
    await_spawner(&fixture, "my-spawner", "has no entry", |spawner| {
        spawner["status"]["failedItems"].get("42").is_none()
    })
    .await?;
    ensure!(fixture.failed_cycles("my-spawner") == 0);
    Ok(())
}

#[tokio::test]
async fn proposal_001_cancels_the_task_of_a_closed_pull_request() -> anyhow::Result<()> {
    let fixture = start("p001").await?;
    let soon = json!({"spec": {
        "when": {"githubPullRequests": {"pollInterval": "1s"}}, "cancellationPolicy": {"gracePeriodSeconds": 1},
    }});
    apply(&fixture, CANCELLATION, &soon).await?;
    let pull = fixture.repo().pull(7);
    pull.labels(["kelos/work"]);
    running(&fixture, "pr-worker-7").await?;
    pull.close();
    let task = fixture
        .await_task("pr-worker-7", "is cancelled", |task| {
            condition(task, "Cancelled").is_some()
        })
        .await?;
    let status = task.status.as_ref().context("a status")?;
    ensure!(
        status.cancelled_by == "spawner:pr-worker" && status.completion_time.is_some(),
        "{task:?}"
    );
    ensure!(
        task.phase() == "Failed" && status.message.contains("spawner:pr-worker"),
        "{task:?}"
    );
    ensure!(fixture.failed_cycles("pr-worker") == 0);
    Ok(())
}

#[tokio::test]
async fn proposal_002_creates_the_jobs_of_each_spawner_suspended_for_its_queue() -> anyhow::Result<()> {
    let fixture = start("p002").await?;
    let soon = json!({"spec": {"when": {"githubIssues": {"pollInterval": "1s"}}}});
    for spawner in documents(&fixture, QUEUES)? {
        apply_object(&fixture, &merged(spawner, &soon)).await?;
    }
    for (number, labels) in [
        (1, ["agent-ready", "x"]),
        (2, ["agent-ready", "priority/critical"]),
        (3, ["agent-ready", "triage-accepted"]),
    ] {
        fixture.repo().issue(number).labels(labels);
    }
    for (task, queue) in [
        ("kelos-workers-1", "kelos-default"),
        ("kelos-hotfix-2", "kelos-critical"),
        ("kelos-triage-3", "kelos-standard"),
    ] {
        let job = fixture.await_job(task, "exists", |_| true).await?;
        let label = job.labels().get("kueue.x-k8s.io/queue-name").map(String::as_str);
        let suspended = job.spec.as_ref().and_then(|spec| spec.suspend);
        ensure!((label, suspended) == (Some(queue), Some(true)), "{job:?}");
        // Without Kueue the Job stays suspended and the Task pending, and the condition says why.
        let waiting = fixture
            .await_task(task, "waits in the queue", |task| condition(task, "Queued").is_some())
            .await?;
        let queued = condition(&waiting, "Queued").context("a condition")?;
        ensure!(queued["status"] == "True" && waiting.phase() != "Running", "{queued}");
    }
    Ok(())
}

#[tokio::test]
async fn proposal_003_is_a_policy_in_force() -> anyhow::Result<()> {
    let fixture = start("p003").await?;
    apply(&fixture, RETRY, &json!({})).await?;
    fixture.await_policy_accepted("dispatch-bridge").await.map(drop)
}

#[tokio::test]
async fn proposal_004_labels_a_task_from_its_issue() -> anyhow::Result<()> {
    let fixture = start("p004").await?;
    apply(&fixture, METADATA_POLICY, &json!({})).await?;
    fixture.await_policy_accepted("issue-worker").await?;
    // Kelos has taskTemplate.metadata itself, and evaluates it differently.
    let soon = json!({"spec": {"when": {"githubIssues": {"pollInterval": "1s"}}}});
    let mut spawner = merged(documents(&fixture, METADATA)?.remove(0), &soon);
    let template = spawner["spec"]["taskTemplate"].as_object_mut().context("a template")?;
    template.remove("metadata");
    apply_object(&fixture, &spawner).await?;
    let issue = fixture.repo().issue(42);
    issue
        .title("Fix the login page")
        .labels(["priority/critical", "agent-task"]);
    let task = fixture
        .await_task("issue-worker-42", "has what the issue says", |task| {
            task.annotations().contains_key("kelos.dev/source-title")
        })
        .await?;
    let label = |key: &str| task.labels().get(key).map(String::as_str).unwrap_or_default();
    ensure!(label("team.example.com/area") == "backend", "{task:?}");
    ensure!(label("kelos.dev/source-kind") == "Issue", "{task:?}");
    ensure!(label("kelos.dev/priority").starts_with("priority-critical"), "{task:?}");
    ensure!(
        task.annotations()["kelos.dev/source-title"] == "Fix the login page",
        "{task:?}"
    );
    // The proposal's own YAML is valid as it is.
    let dry = fixture
        .dry_run(&merged(
            documents(&fixture, METADATA)?.remove(0),
            &json!({"metadata": {"name": "as-it-is"}}),
        ))
        .await?;
    ensure!(
        dry["spec"]["taskTemplate"]["metadata"]["labels"]["team.example.com/area"] == "backend",
        "{dry}"
    );
    Ok(())
}
