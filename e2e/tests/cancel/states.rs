//! A user cancels a Task: in whatever state it is, it ends, and no Job or pod is left.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::batch::v1::JobCondition;
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{KelosFixture, PATIENCE, await_gone, eventually, never};

use crate::{
    matrix::{self, State},
    support::{
        annotate, await_cancelled, cancel, cancel_state, cancelled_condition, governed, pods_created, start, task,
        task_events, task_with,
    },
};

#[tokio::test]
async fn a_running_task_ends_as_cancelled_with_who_and_why() -> anyhow::Result<()> {
    let fixture = start("running").await?;
    let before = fixture.gate.metrics().await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.run(&task("job-1")).await?;
    cancel(&fixture, "job-1", "no longer needed").await?;
    fixture
        .await_job("job-1", "fails", |job| {
            let status = job.status.clone().unwrap_or_default();
            let failing = |known: &JobCondition| {
                known.type_ == "FailureTarget" && known.reason.as_deref() == Some("TaskCancelled")
            };
            status.conditions.iter().flatten().any(failing)
        })
        .await?;
    let task = await_cancelled(&fixture, "job-1").await?;
    ensure!(task.phase() == "Failed", "{}", task.phase());
    let told = cancelled_condition(&task);
    ensure!(told["status"] == "True" && told["reason"] == "ByHand", "{told}");
    ensure!(told["message"] == "Cancelled by user:ann: no longer needed", "{told}");
    ensure!(task.current().message == told["message"].as_str().unwrap_or_default());
    ensure!(task.current().completion_time.is_some());
    let events = task_events(&fixture, "job-1", "TaskCancelled").await?;
    ensure!(events.len() == 1, "{events:?}");
    ensure!(
        pods_created(&fixture, mark, "job-1").await? == 1,
        "a second agent was started"
    );
    let after = fixture.gate.metrics().await?;
    let labels = [
        ("namespace", fixture.ns.name()),
        ("phase", "Cancelled"),
        ("spawner", ""),
        ("type", "claude-code"),
    ];
    ensure!(after.value("kelos_task_completed_total", &labels) == Some(1.0));
    let by_user = |metrics: &taskgate_e2e::Metrics| {
        metrics
            .value("taskgate_cancellations_total", &[("trigger", "ByHand")])
            .unwrap_or_default()
    };
    ensure!(by_user(&after) >= by_user(&before) + 1.0);
    Ok(())
}

#[tokio::test]
async fn a_task_that_waits_for_its_branch_stays_cancelled() -> anyhow::Result<()> {
    let fixture = start("branch").await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.run(&task_with("holder", &json!({"branch": "main"}))).await?;
    fixture
        .created(&task_with("waiter", &json!({"branch": "main"})))
        .await?;
    fixture.await_task_phase("waiter", "Waiting").await?;
    cancel(&fixture, "waiter", "changed my mind").await?;
    let task = await_cancelled(&fixture, "waiter").await?;
    ensure!(task.phase() == "Failed" && task.current().completion_time.is_some());
    // Kelos reconciles waiting Tasks every 10 s.
    never("the Task waits again", Duration::from_secs(12), || async {
        let task = fixture.tasks().get("waiter").await?;
        Ok((task.phase() != "Failed").then(|| task.phase().to_owned()))
    })
    .await?;
    ensure!(pods_created(&fixture, mark, "waiter").await? == 0);
    fixture.succeed("holder").await
}

#[tokio::test]
async fn a_task_that_waits_for_another_is_cancelled() -> anyhow::Result<()> {
    let fixture = start("depends").await?;
    fixture
        .created(&task_with("second", &json!({"dependsOn": ["first"]})))
        .await?;
    fixture.await_task_phase("second", "Waiting").await?;
    cancel(&fixture, "second", "").await?;
    let told = cancelled_condition(&await_cancelled(&fixture, "second").await?);
    ensure!(told["message"] == "Cancelled by user:ann", "{told}");
    fixture.created(&task("first")).await?;
    fixture.await_task_phase("first", "Running").await?;
    fixture.succeed("first").await?;
    ensure!(fixture.tasks().get("second").await?.phase() == "Failed");
    Ok(())
}

#[tokio::test]
async fn a_job_that_is_suspended_in_a_queue_is_cancelled() -> anyhow::Result<()> {
    let fixture = governed("queued", json!({"queueName": "agents"})).await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.created(&task("queued")).await?;
    let job = fixture.await_job("queued", "is there", |_| true).await?;
    ensure!(job.spec.and_then(|spec| spec.suspend) == Some(true));
    fixture.await_task_phase("queued", "Pending").await?;
    cancel(&fixture, "queued", "the queue is too long").await?;
    let task = await_cancelled(&fixture, "queued").await?;
    ensure!(task.phase() == "Failed");
    ensure!(pods_created(&fixture, mark, "queued").await? == 0);
    Ok(())
}

fn workspace(fixture: &KelosFixture<'_>) -> String {
    let repo = fixture.repo().clone_url();
    let workspace = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "later"}, "spec": {"repo": repo},
    });
    workspace.to_string()
}

/// The Task has locked its branch without a Job: to write Failed would keep the lock for ever (kelos T2).
async fn frees_its_branch_once_kelos_can_start_it(fixture: &KelosFixture<'_>, name: &str) -> anyhow::Result<()> {
    let mark = fixture.cp.audit().mark()?;
    eventually("the branch is locked", PATIENCE, || async {
        ensure!(fixture.standin.locks().holder("later:main").as_deref() == Some(name));
        Ok(())
    })
    .await?;
    cancel(fixture, name, "").await?;
    fixture
        .await_task(name, "is being cancelled", |task| cancel_state(task) == "Cancelling")
        .await?;
    never("the Task ends and keeps the lock", Duration::from_secs(3), || async {
        let task = fixture.tasks().get(name).await?;
        Ok((task.phase() == "Failed").then(|| task.current().message))
    })
    .await?;
    fixture.apply_yaml(&workspace(fixture)).await?;
    await_cancelled(fixture, name).await?;
    ensure!(
        pods_created(fixture, mark, name).await? == 0,
        "the agent of a cancelled Task was started"
    );
    let spec = json!({"branch": "main", "workspaceRef": {"name": "later"}});
    fixture.run(&task_with("next", &spec)).await.map(drop)
}

#[tokio::test]
async fn a_task_that_kelos_cannot_start_yet_frees_its_branch_once_it_could() -> anyhow::Result<()> {
    let fixture = start("early").await?;
    let spec = json!({"branch": "main", "workspaceRef": {"name": "later"}});
    fixture.created(&task_with("early", &spec)).await?;
    frees_its_branch_once_kelos_can_start_it(&fixture, "early").await
}

/// Its phase is still Waiting, although it has locked the branch by now.
#[tokio::test]
async fn a_waiting_task_that_has_locked_its_branch_frees_it_too() -> anyhow::Result<()> {
    let fixture = start("unseen").await?;
    fixture.apply_yaml(&workspace(&fixture)).await?;
    let spec = json!({"branch": "main", "workspaceRef": {"name": "later"}});
    fixture.run(&task_with("holder", &spec)).await?;
    fixture.created(&task_with("waiter", &spec)).await?;
    fixture.await_task_phase("waiter", "Waiting").await?;
    fixture
        .kubectl(["delete", "workspaces.kelos.dev", "later"])
        .await?
        .stdout_ok()?;
    fixture.succeed("holder").await?;
    frees_its_branch_once_kelos_can_start_it(&fixture, "waiter").await
}

#[tokio::test]
async fn the_branch_is_free_and_the_next_task_starts() -> anyhow::Result<()> {
    let fixture = start("lock").await?;
    fixture.run(&task_with("first", &json!({"branch": "dev"}))).await?;
    fixture.created(&task_with("second", &json!({"branch": "dev"}))).await?;
    fixture.await_task_phase("second", "Waiting").await?;
    cancel(&fixture, "first", "stale").await?;
    fixture.await_task_phase("second", "Running").await?;
    await_cancelled(&fixture, "first").await.map(drop)
}

#[tokio::test]
async fn the_spawners_concurrency_is_free_and_no_cycle_fails() -> anyhow::Result<()> {
    let fixture = start("slot").await?;
    fixture.repo().issue(1);
    fixture.repo().issue(2);
    let when = json!({"githubIssues": {"pollInterval": "1s"}});
    fixture.spawner("fixer", &when, &json!({"maxConcurrency": 1})).await?;
    let running = eventually("one of the two runs", PATIENCE, || async {
        let tasks = fixture.tasks().list(&kube::api::ListParams::default()).await?;
        let running = tasks.into_iter().find(|task| task.phase() == "Running");
        running
            .map(|task| task.name_any())
            .ok_or_else(|| anyhow::anyhow!("none"))
    })
    .await?;
    let other = if running == "fixer-1" { "fixer-2" } else { "fixer-1" };
    cancel(&fixture, &running, "the other one first").await?;
    fixture.await_task_phase(other, "Running").await?;
    await_cancelled(&fixture, &running).await?;
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn the_ttl_applies_and_the_spawner_creates_the_task_anew() -> anyhow::Result<()> {
    let fixture = start("ttl").await?;
    fixture.repo().issue(3);
    fixture.issue_spawner("fixer", Some(1)).await?;
    let first = fixture.await_task_phase("fixer-3", "Running").await?;
    cancel(&fixture, "fixer-3", "").await?;
    fixture
        .await_task("fixer-3", "is another Task", |task| {
            task.uid() != first.uid() && task.phase() == "Running"
        })
        .await?;
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn a_job_that_is_deleted_meanwhile_is_recreated_only_to_end() -> anyhow::Result<()> {
    let fixture = start("deleted").await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.run(&task("job-2")).await?;
    cancel(&fixture, "job-2", "").await?;
    fixture
        .kubectl(["delete", "job", "job-2", "--ignore-not-found", "--wait=false"])
        .await?
        .stdout_ok()?;
    await_cancelled(&fixture, "job-2").await?;
    ensure!(
        pods_created(&fixture, mark, "job-2").await? == 1,
        "a second agent was started"
    );
    Ok(())
}

#[tokio::test]
async fn a_task_that_is_deleted_meanwhile_is_deleted() -> anyhow::Result<()> {
    let fixture = start("going").await?;
    fixture.run(&task("job-3")).await?;
    let grace = format!("{}=3600", keys::CANCEL_GRACE);
    annotate(&fixture, "ann", "job-3", &[&format!("{}=later", keys::CANCEL), &grace])
        .await?
        .stdout_ok()?;
    fixture
        .await_task("job-3", "is announced", |task| cancel_state(task) == "Announced")
        .await?;
    fixture
        .kubectl(["delete", "task", "job-3", "--wait=false"])
        .await?
        .stdout_ok()?;
    await_gone(&fixture.tasks(), "job-3").await
}

#[tokio::test]
async fn a_task_whose_pods_cannot_be_made_is_cancelled() -> anyhow::Result<()> {
    let fixture = matrix::fixture_in(State::Pending, "pending", &json!({})).await?;
    fixture.created(&task("stuck")).await?;
    matrix::reach(&fixture, "stuck", State::Pending).await?;
    cancel(&fixture, "stuck", "").await?;
    matrix::ends(&fixture, "stuck", State::Pending, "ByHand").await?;
    ensure!(
        fixture
            .pods()
            .list(&kube::api::ListParams::default())
            .await?
            .items
            .is_empty()
    );
    Ok(())
}
