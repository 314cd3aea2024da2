//! A person cancels a Task: whatever state it is in, it ends, and nothing is left behind.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::batch::v1::JobCondition;
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, await_gone, await_object, eventually, never};

use crate::{
    matrix::{self, State},
    world::{World, condition, state, task, task_with},
};

#[tokio::test]
async fn a_running_task_ends_as_cancelled_with_who_and_why() -> anyhow::Result<()> {
    let world = World::start("running").await?;
    let before = world.gate.metrics().await?;
    let mark = world.cp.audit().mark()?;
    world.run(&task("job-1")).await?;
    world.cancel("job-1", "no longer needed").await?;
    await_object(&world.jobs(), "job-1", "fails", |job| {
        let status = job.status.clone().unwrap_or_default();
        let failing =
            |known: &JobCondition| known.type_ == "FailureTarget" && known.reason.as_deref() == Some("TaskCancelled");
        status.conditions.iter().flatten().any(failing)
    })
    .await?;
    let task = world.await_cancelled("job-1").await?;
    ensure!(task.phase() == "Failed", "{}", task.phase());
    let told = condition(&task);
    ensure!(told["status"] == "True" && told["reason"] == "ByHand", "{told}");
    ensure!(told["message"] == "Cancelled by user:ann: no longer needed", "{told}");
    ensure!(task.current().message == told["message"].as_str().unwrap_or_default());
    ensure!(task.current().completion_time.is_some());
    let events = world.events("job-1", "TaskCancelled").await?;
    ensure!(events.len() == 1, "{events:?}");
    ensure!(world.pods_made(mark, "job-1").await? == 1, "a second agent was started");
    let after = world.gate.metrics().await?;
    let labels = [
        ("namespace", world.ns.name()),
        ("phase", "Cancelled"),
        ("type", "claude-code"),
    ];
    ensure!(after.value("kelos_task_completed_total", &labels) == Some(1.0));
    let by_hand = |metrics: &taskgate_e2e::Metrics| {
        metrics
            .value("taskgate_cancellations_total", &[("trigger", "ByHand")])
            .unwrap_or_default()
    };
    ensure!(by_hand(&after) >= by_hand(&before) + 1.0);
    Ok(())
}

#[tokio::test]
async fn a_task_that_waits_for_its_branch_stays_cancelled() -> anyhow::Result<()> {
    let world = World::start("branch").await?;
    let mark = world.cp.audit().mark()?;
    world.run(&task_with("holder", &json!({"branch": "main"}))).await?;
    world
        .create(&task_with("waiter", &json!({"branch": "main"})), false)
        .await?
        .stdout_ok()?;
    world
        .await_task("waiter", "waits", |task| task.phase() == "Waiting")
        .await?;
    world.cancel("waiter", "changed my mind").await?;
    let task = world.await_cancelled("waiter").await?;
    ensure!(task.phase() == "Failed" && task.current().completion_time.is_some());
    // Kelos looks at Tasks that wait every 10 s.
    never("the Task waits again", Duration::from_secs(12), || async {
        let task = world.tasks().get("waiter").await?;
        Ok((task.phase() != "Failed").then(|| task.phase().to_owned()))
    })
    .await?;
    ensure!(world.pods_made(mark, "waiter").await? == 0);
    world.succeed("holder").await
}

#[tokio::test]
async fn a_task_that_waits_for_another_is_cancelled() -> anyhow::Result<()> {
    let world = World::start("depends").await?;
    world
        .create(&task_with("second", &json!({"dependsOn": ["first"]})), false)
        .await?
        .stdout_ok()?;
    world
        .await_task("second", "waits", |task| task.phase() == "Waiting")
        .await?;
    world.cancel("second", "").await?;
    let told = condition(&world.await_cancelled("second").await?);
    ensure!(told["message"] == "Cancelled by user:ann", "{told}");
    world.create(&task("first"), false).await?.stdout_ok()?;
    world
        .await_task("first", "runs", |task| task.phase() == "Running")
        .await?;
    world.succeed("first").await?;
    ensure!(world.tasks().get("second").await?.phase() == "Failed");
    Ok(())
}

#[tokio::test]
async fn a_job_that_is_suspended_in_a_queue_is_cancelled() -> anyhow::Result<()> {
    let world = World::governed("queued", json!({"queueName": "agents"})).await?;
    let mark = world.cp.audit().mark()?;
    world.create(&task("queued"), false).await?.stdout_ok()?;
    let job = await_object(&world.jobs(), "queued", "is there", |_| true).await?;
    ensure!(job.spec.and_then(|spec| spec.suspend) == Some(true));
    world
        .await_task("queued", "is pending", |task| task.phase() == "Pending")
        .await?;
    world.cancel("queued", "the queue is too long").await?;
    let task = world.await_cancelled("queued").await?;
    ensure!(task.phase() == "Failed");
    ensure!(world.pods_made(mark, "queued").await? == 0);
    Ok(())
}

fn workspace(world: &World<'_>) -> String {
    let repo = world.repo().clone_url();
    let workspace = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "later"}, "spec": {"repo": repo},
    });
    workspace.to_string()
}

/// The Task holds its branch without a Job: to write Failed would keep the lock for ever (kelos T2).
async fn frees_its_branch_once_kelos_can_start_it(world: &World<'_>, name: &str) -> anyhow::Result<()> {
    let mark = world.cp.audit().mark()?;
    eventually("the branch is locked", PATIENCE, || async {
        ensure!(world.standin.locks().holder("later:main").as_deref() == Some(name));
        Ok(())
    })
    .await?;
    world.cancel(name, "").await?;
    world
        .await_task(name, "is being cancelled", |task| state(task) == "Cancelling")
        .await?;
    never("the Task ends and keeps the lock", Duration::from_secs(3), || async {
        let task = world.tasks().get(name).await?;
        Ok((task.phase() == "Failed").then(|| task.current().message))
    })
    .await?;
    world.ns.apply_yaml(&workspace(world)).await?;
    world.await_cancelled(name).await?;
    ensure!(
        world.pods_made(mark, name).await? == 0,
        "the agent of a cancelled Task was started"
    );
    let spec = json!({"branch": "main", "workspaceRef": {"name": "later"}});
    world.run(&task_with("next", &spec)).await.map(drop)
}

#[tokio::test]
async fn a_task_that_kelos_cannot_start_yet_frees_its_branch_once_it_could() -> anyhow::Result<()> {
    let world = World::start("early").await?;
    let spec = json!({"branch": "main", "workspaceRef": {"name": "later"}});
    world.create(&task_with("early", &spec), false).await?.stdout_ok()?;
    frees_its_branch_once_kelos_can_start_it(&world, "early").await
}

/// Its phase says that it waits for the branch, which it holds by now.
#[tokio::test]
async fn a_task_that_has_got_its_branch_unseen_frees_it_too() -> anyhow::Result<()> {
    let world = World::start("unseen").await?;
    world.ns.apply_yaml(&workspace(&world)).await?;
    let spec = json!({"branch": "main", "workspaceRef": {"name": "later"}});
    world.run(&task_with("holder", &spec)).await?;
    world.create(&task_with("waiter", &spec), false).await?.stdout_ok()?;
    world
        .await_task("waiter", "waits", |task| task.phase() == "Waiting")
        .await?;
    world
        .ns
        .kubectl(["delete", "workspaces.kelos.dev", "later"])
        .await?
        .stdout_ok()?;
    world.succeed("holder").await?;
    frees_its_branch_once_kelos_can_start_it(&world, "waiter").await
}

#[tokio::test]
async fn the_branch_is_free_and_the_next_task_starts() -> anyhow::Result<()> {
    let world = World::start("lock").await?;
    world.run(&task_with("first", &json!({"branch": "dev"}))).await?;
    world
        .create(&task_with("second", &json!({"branch": "dev"})), false)
        .await?
        .stdout_ok()?;
    world
        .await_task("second", "waits", |task| task.phase() == "Waiting")
        .await?;
    world.cancel("first", "stale").await?;
    world
        .await_task("second", "runs", |task| task.phase() == "Running")
        .await?;
    world.await_cancelled("first").await.map(drop)
}

#[tokio::test]
async fn the_spawners_slot_is_free_and_no_cycle_fails() -> anyhow::Result<()> {
    let world = World::start("slot").await?;
    world.repo().issue(1);
    world.repo().issue(2);
    let when = json!({"githubIssues": {"pollInterval": "1s"}});
    world.spawner("fixer", &when, &json!({"maxConcurrency": 1})).await?;
    let running = eventually("one of the two runs", PATIENCE, || async {
        let tasks = world.tasks().list(&kube::api::ListParams::default()).await?;
        let running = tasks.into_iter().find(|task| task.phase() == "Running");
        running
            .map(|task| task.name_any())
            .ok_or_else(|| anyhow::anyhow!("none"))
    })
    .await?;
    let other = if running == "fixer-1" { "fixer-2" } else { "fixer-1" };
    world.cancel(&running, "the other one first").await?;
    world
        .await_task(other, "runs", |task| task.phase() == "Running")
        .await?;
    world.await_cancelled(&running).await?;
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn the_ttl_runs_and_the_spawner_makes_the_item_anew() -> anyhow::Result<()> {
    let world = World::start("ttl").await?;
    world.repo().issue(3);
    let when = json!({"githubIssues": {"pollInterval": "1s"}});
    world
        .spawner("fixer", &when, &json!({"ttlSecondsAfterFinished": 1}))
        .await?;
    let first = world
        .await_task("fixer-3", "runs", |task| task.phase() == "Running")
        .await?;
    world.cancel("fixer-3", "").await?;
    world
        .await_task("fixer-3", "is another Task", |task| {
            task.uid() != first.uid() && task.phase() == "Running"
        })
        .await?;
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn a_job_that_somebody_deletes_meanwhile_comes_back_only_to_end() -> anyhow::Result<()> {
    let world = World::start("deleted").await?;
    let mark = world.cp.audit().mark()?;
    world.run(&task("job-2")).await?;
    world.cancel("job-2", "").await?;
    world
        .ns
        .kubectl(["delete", "job", "job-2", "--ignore-not-found", "--wait=false"])
        .await?
        .stdout_ok()?;
    world.await_cancelled("job-2").await?;
    ensure!(world.pods_made(mark, "job-2").await? == 1, "a second agent was started");
    Ok(())
}

#[tokio::test]
async fn a_task_that_is_deleted_meanwhile_just_goes() -> anyhow::Result<()> {
    let world = World::start("going").await?;
    world.run(&task("job-3")).await?;
    let grace = format!("{}=3600", keys::CANCEL_GRACE);
    world
        .annotate("ann", "job-3", &[&format!("{}=later", keys::CANCEL), &grace])
        .await?
        .stdout_ok()?;
    world
        .await_task("job-3", "is announced", |task| state(task) == "Announced")
        .await?;
    world
        .ns
        .kubectl(["delete", "task", "job-3", "--wait=false"])
        .await?
        .stdout_ok()?;
    await_gone(&world.tasks(), "job-3").await
}

#[tokio::test]
async fn a_task_whose_pods_cannot_be_made_is_cancelled() -> anyhow::Result<()> {
    let world = matrix::world(State::Pending, "pending", &json!({})).await?;
    world.create(&task("stuck"), false).await?.stdout_ok()?;
    matrix::reach(&world, "stuck", State::Pending).await?;
    world.cancel("stuck", "").await?;
    matrix::ends(&world, "stuck", State::Pending, "ByHand").await?;
    ensure!(
        world
            .pods()
            .list(&kube::api::ListParams::default())
            .await?
            .items
            .is_empty()
    );
    Ok(())
}
