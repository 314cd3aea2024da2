//! The wire format, and the registration, against files that a reviewer can read. `UPDATE_GOLDEN=1` writes them anew.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use taskgate_api::WorkItemStatus;
use taskgate_policy::SpawnerInfo;
use taskgate_webhook::{Registration, ServerLimits};

mod support;
use support::{FixedCluster, job, review, task, task_review};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn compare(name: &str, seen: &Value) -> anyhow::Result<()> {
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, format!("{seen:#}\n"))?;
    }
    let wanted = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    assert_eq!(
        format!("{seen:#}\n"),
        wanted,
        "{}: UPDATE_GOLDEN=1 accepts the difference",
        path.display()
    );
    Ok(())
}

/// Sends `review` and compares the exchange. The patch is shown decoded.
async fn exchange(name: &str, cluster: FixedCluster, target: &str, review: Value) -> anyhow::Result<()> {
    let server = support::serve(cluster, ServerLimits::default()).await?;
    let answer = server.post(target, review.to_string()).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    let mut seen = answer.json()?;
    if let Some(patch) = seen["response"].get_mut("patch") {
        let ByteString(bytes) = serde_json::from_value(patch.take())?;
        *patch = serde_json::from_slice(&bytes)?;
    }
    compare(
        &format!("{name}.json"),
        &json!({"target": target, "review": review, "answer": seen}),
    )
}

fn job_kind() -> Value {
    json!({"group": "batch", "version": "v1", "kind": "Job"})
}

fn policy_kind() -> Value {
    json!({"group": "taskgate.dev", "version": "v1alpha1", "kind": "TaskPolicy"})
}

/// The API server selects Jobs by a label, which any Job may have.
#[tokio::test]
async fn a_job_of_another_owner_is_admitted_unchanged() -> anyhow::Result<()> {
    let mut other = job("team");
    other["metadata"]["ownerReferences"][0]["kind"] = json!("TaskSpawner");
    other["metadata"]["annotations"] = json!({"taskgate.dev/stopped": "x"});
    let cluster = FixedCluster::policy("{queueName: agents}")?;
    let server = support::serve(cluster, ServerLimits::default()).await?;
    let review = review(&job_kind(), "team", &other);
    let answer = server.post("/mutate/jobs", review.to_string()).await?.json()?;
    let response = &answer["response"];
    assert!(
        response["allowed"] == true && response.get("patch").is_none(),
        "{response}"
    );
    Ok(())
}

#[tokio::test]
async fn a_task_without_a_policy_is_admitted_unchanged() -> anyhow::Result<()> {
    exchange(
        "task-ungoverned",
        FixedCluster::default(),
        "/mutate/tasks",
        task_review("team"),
    )
    .await
}

#[tokio::test]
async fn a_governed_task_is_labelled() -> anyhow::Result<()> {
    let cluster =
        FixedCluster::policy("{metadata: {labels: {team: a}, annotations: {example.com/cost-centre: '42'}}}")?;
    exchange("task-labelled", cluster, "/mutate/tasks", task_review("team")).await
}

#[tokio::test]
async fn a_job_of_a_governed_task_is_queued() -> anyhow::Result<()> {
    let cluster = FixedCluster {
        owner_task: Some(task("team")),
        ..FixedCluster::policy("{queueName: agents, queuePriorityClass: high}")?
    };
    exchange(
        "job-queued",
        cluster,
        "/mutate/jobs",
        review(&job_kind(), "team", &job("team")),
    )
    .await
}

#[tokio::test]
async fn a_job_whose_task_was_replaced_is_admitted_unchanged() -> anyhow::Result<()> {
    let mut other = task("team");
    other["metadata"]["uid"] = json!("another-uid");
    let cluster = FixedCluster {
        owner_task: Some(other),
        ..FixedCluster::policy("{queueName: agents}")?
    };
    exchange(
        "job-of-another-task",
        cluster,
        "/mutate/jobs",
        review(&job_kind(), "team", &job("team")),
    )
    .await
}

#[tokio::test]
async fn a_task_of_a_tripped_item_is_denied() -> anyhow::Result<()> {
    let work_item: WorkItemStatus = serde_json::from_value(json!({"breaker": "Open", "consecutiveFailures": 3,
        "openedAt": "2026-01-01T00:00:00Z", "lastFailureTime": "2026-01-01T00:00:00Z", "totalCostUSD": "1.25"}))?;
    let cluster = FixedCluster {
        spawner: Some(SpawnerInfo::default()),
        work_item: Some(work_item),
        ..FixedCluster::policy("{failurePolicy: {maxRetriesPerItem: 3}}")?
    };
    exchange("task-of-open-item", cluster, "/validate/tasks", task_review("team")).await
}

#[tokio::test]
async fn a_policy_that_cannot_be_applied_is_refused() -> anyhow::Result<()> {
    let policy = json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy",
        "metadata": {"name": "agents", "namespace": "team"},
        "spec": {"metadata": {"labels": {"kelos.dev/task": "mine"}}}});
    let review = review(&policy_kind(), "team", &policy);
    exchange("policy-invalid", FixedCluster::default(), "/validate/policies", review).await
}

#[tokio::test]
async fn an_unregistered_kind_is_admitted_with_a_note_in_the_audit_log() -> anyhow::Result<()> {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let review = review(&kind, "team", &json!({"metadata": {"name": "p"}}));
    exchange("kind-unexpected", FixedCluster::default(), "/mutate/tasks", review).await
}

#[test]
fn the_registration_is_what_is_installed() -> anyhow::Result<()> {
    let (mutating, validating) = Registration::of_service("taskgate", "taskgate-system").configurations();
    compare("registration.json", &json!([mutating, validating]))
}
