//! The cycle: S6 to S12, S14.

use crate::support::{NEVER, StandinFixture, condition};
use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use kelos_standin::types::TaskSpawner;
use kelos_standin::{CycleResult, Fault, Outcome};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::{Duration, Instant};
use taskgate_e2e::{PATIENCE, await_gone, await_object, eventually, never};

const OK: CycleResult = CycleResult::Success;
const FAILED: CycleResult = CycleResult::Failure;

#[tokio::test]
async fn s06_a_refused_item_does_not_stop_the_others_but_fails_the_cycle() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s06").await?;
    let _denial = fixture.deny_task("fixer-42").await?;
    for number in 41..=43 {
        fixture.repo().issue(number);
    }
    fixture.spawn_issues("fixer", NEVER, "").await?;
    fixture.await_cycles("fixer", FAILED, 3).await?;
    assert_eq!(fixture.names().await?, ["fixer-41", "fixer-43"]);
    assert_eq!(fixture.cycles("fixer", OK), 0);
    assert_eq!(fixture.status("fixer").await?.total_tasks_created, 2);
    Ok(())
}

#[tokio::test]
async fn s07_the_status_of_a_failed_cycle_tells_the_item() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s07").await?;
    let denial = fixture.deny_task("fixer-42").await?;
    fixture.repo().issue(42);
    fixture.spawn_issues("fixer", NEVER, "").await?;
    fixture.await_cycles("fixer", FAILED, 1).await?;
    let status = fixture.status("fixer").await?;
    assert_eq!(status.phase, "Running");
    assert!(status.last_discovery_time.is_some());
    let (holds, reason, message) = condition(&status, "DiscoveryError").unwrap_or_default();
    assert_eq!((holds, reason), ("True", "TaskCreationFailed"));
    let error = "item 42: creating Task fixer-42: tasks.kelos.dev \"fixer-42\" is forbidden: ";
    assert!(message.starts_with(error), "{message}");
    assert!(message.ends_with("denied request: denied by the test"), "{message}");
    let told = format!("Discovered 1 items, created 0 tasks total; 1 creation error(s): {message}");
    assert_eq!(status.message, told);
    denial.lift().await?;
    fixture.await_cycles("fixer", OK, 1).await?;
    let status = fixture.status("fixer").await?;
    let says = condition(&status, "DiscoveryError").unwrap_or_default();
    assert_eq!((says.0, says.1), ("False", "NoErrors"));
    assert_eq!(status.message, "Discovered 1 items, created 1 tasks total");
    Ok(())
}

#[tokio::test]
async fn s08_a_failed_cycle_backs_off_for_all_items_and_one_success_resets() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s08").await?;
    let denial = fixture.deny_task("fixer-42").await?;
    fixture.repo().issue(42);
    fixture.spawn_issues("fixer", "1s", "").await?;
    // 5 ms doubled nine times is 2.5 s: the tenth failure comes after 5 s in all, whatever pollInterval says.
    fixture.await_cycles("fixer", FAILED, 9).await?;
    let ninth = Instant::now();
    fixture.repo().issue(43);
    fixture.await_cycles("fixer", FAILED, 10).await?;
    let waited = ninth.elapsed();
    assert!(
        waited > Duration::from_millis(900),
        "the tenth failure came after {waited:?}"
    );
    denial.lift().await?;
    fixture.await_cycles("fixer", OK, 1).await?;
    fixture.await_task("fixer-43", "exists", |_| true).await?;
    // Reset: now pollInterval counts, and the next failures come quickly again.
    fixture.await_cycles("fixer", OK, 3).await?;
    let _denial = fixture.deny_task("fixer-44").await?;
    let failures = fixture.cycles("fixer", FAILED);
    fixture.repo().issue(44);
    fixture.await_cycles("fixer", FAILED, failures + 1).await?;
    let first = Instant::now();
    fixture.await_cycles("fixer", FAILED, failures + 5).await?;
    let took = first.elapsed();
    assert!(took < Duration::from_secs(3), "five failures took {took:?}");
    Ok(())
}

#[tokio::test]
async fn s09_phases_and_deletions_of_its_tasks_wake_it_and_nothing_else() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s09").await?;
    fixture.repo().issue(42);
    fixture.spawn_issues("fixer", NEVER, "").await?;
    fixture.await_task_phase("fixer-42", "Running").await?;
    let settled = async || {
        let quiet = Duration::from_secs(1);
        let before = fixture.cycles("fixer", OK);
        tokio::time::timeout(quiet, fixture.await_cycles("fixer", OK, before + 1))
            .await
            .is_err()
    };
    eventually("the phases Pending and Running are worked off", PATIENCE, async || {
        ensure!(settled().await, "cycles go on");
        Ok(())
    })
    .await?;
    let before = fixture.cycles("fixer", OK);
    assert!(before >= 2, "{before} cycles: creation, and the phases");
    let touch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}));
    fixture
        .tasks()
        .patch("fixer-42", &PatchParams::default(), &touch)
        .await?;
    let condition = json!({"type": "Queued", "status": "True", "reason": "R", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    let tasks = fixture.tasks();
    tasks
        .patch_status("fixer-42", &PatchParams::default(), &conditions)
        .await?;
    fixture
        .ns
        .api::<TaskSpawner>()
        .patch("fixer", &PatchParams::default(), &touch)
        .await?;
    let quiet = Duration::from_millis(1500);
    never("a label wakes it", quiet, async || {
        Ok((fixture.cycles("fixer", OK) != before).then_some("a cycle"))
    })
    .await?;
    // A phase, the deletion's beginning and its end.
    fixture.end("fixer-42", Outcome::succeeded()).await?;
    fixture.await_cycles("fixer", OK, before + 1).await?;
    let before = fixture.cycles("fixer", OK);
    fixture.repo().issue(42).close();
    fixture.tasks().delete("fixer-42", &DeleteParams::default()).await?;
    await_gone(&fixture.tasks(), "fixer-42").await?;
    fixture.await_cycles("fixer", OK, before + 1).await?;
    // A generation.
    let before = fixture.cycles("fixer", OK);
    fixture.spawn_issues("fixer", NEVER, "maxConcurrency: 7").await?;
    fixture.await_cycles("fixer", OK, before + 1).await
}

#[tokio::test]
async fn s10_active_is_whatever_is_not_terminal_and_limits_in_order() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s10").await?;
    for number in 41..=43 {
        fixture.repo().issue(number).labels(["slow"]);
    }
    fixture.repo().issue(42).labels(["slow", "urgent"]);
    let when = "githubIssues: {pollInterval: 300ms, priorityLabels: [urgent, slow]}";
    fixture.spawner("fixer", when, "", "maxConcurrency: 1").await?;
    fixture.await_task_phase("fixer-42", "Running").await?;
    let cycles = fixture.cycles("fixer", OK);
    fixture.await_cycles("fixer", OK, cycles + 2).await?;
    assert_eq!(fixture.names().await?, ["fixer-42"], "the urgent one, and no other");
    assert_eq!(fixture.status("fixer").await?.active_tasks, 1);
    // A made-up phase is active as well; here it has no Job any more to be overruled by.
    fixture.end("fixer-42", Outcome::succeeded()).await?;
    fixture.await_task_phase("fixer-43", "Running").await?;
    assert_eq!(fixture.names().await?, ["fixer-42", "fixer-43"], "the newest of equals");
    Ok(())
}

#[tokio::test]
async fn s11_max_total_tasks_counts_what_was_ever_created() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s11").await?;
    fixture.repo().issue(42);
    fixture.spawn_issues("fixer", "300ms", "maxTotalTasks: 1").await?;
    fixture.await_task_phase("fixer-42", "Running").await?;
    let reached = |status: &TaskSpawner| {
        let status = status.current();
        let says = condition(&status, "MaxTotalTasksReached").unwrap_or_default();
        let same = condition(&status, "TaskBudgetExhausted").unwrap_or_default();
        says == same && says.2 == "Total tasks created (1) has reached maxTotalTasks (1)"
    };
    await_object(&fixture.ns.api::<TaskSpawner>(), "fixer", "limit reached", reached).await?;
    fixture.tasks().delete("fixer-42", &DeleteParams::default()).await?;
    await_gone(&fixture.tasks(), "fixer-42").await?;
    let cycles = fixture.cycles("fixer", OK);
    fixture.await_cycles("fixer", OK, cycles + 3).await?;
    assert!(fixture.names().await?.is_empty());
    assert_eq!(fixture.status("fixer").await?.total_tasks_created, 1);
    Ok(())
}

#[tokio::test]
async fn s12_a_discovery_error_writes_no_status() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s12").await?;
    fixture.repo().issue(42);
    fixture.spawn_issues("fixer", "200ms", "").await?;
    fixture.await_task_phase("fixer-42", "Running").await?;
    for fault in [Fault::status(500), Fault::rate_limited(), Fault::garbage()] {
        fixture.github.fault(fault.clone());
        let failures = fixture.cycles("fixer", FAILED);
        fixture.await_cycles("fixer", FAILED, failures + 1).await?;
        let before = fixture.ns.api::<TaskSpawner>().get("fixer").await?;
        fixture.await_cycles("fixer", FAILED, failures + 3).await?;
        let after = fixture.ns.api::<TaskSpawner>().get("fixer").await?;
        assert_eq!(before.resource_version(), after.resource_version(), "{fault:?}");
        fixture.github.heal();
        let cycles = fixture.cycles("fixer", OK);
        fixture.await_cycles("fixer", OK, cycles + 1).await?;
    }
    Ok(())
}

#[tokio::test]
async fn s14_a_suspended_spawner_discovers_nothing() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s14").await?;
    fixture.repo().issue(42);
    fixture.spawn_issues("fixer", "200ms", "suspend: true").await?;
    let spawners = fixture.ns.api::<TaskSpawner>();
    let suspended = await_object(&spawners, "fixer", "suspended", |s| s.phase() == "Suspended");
    suspended.await?;
    let replicas = |wanted| move |d: &Deployment| d.spec.as_ref().is_some_and(|s| s.replicas == Some(wanted));
    await_object(&fixture.ns.api::<Deployment>(), "fixer", "no replica", replicas(0)).await?;
    fixture.await_cycles("fixer", CycleResult::Suspended, 2).await?;
    let version = spawners.get("fixer").await?.resource_version();
    fixture.await_cycles("fixer", CycleResult::Suspended, 5).await?;
    assert_eq!(spawners.get("fixer").await?.resource_version(), version, "written once");
    assert!(fixture.github.seen().is_empty(), "{:?}", fixture.github.seen());
    assert!(fixture.names().await?.is_empty());
    fixture.spawn_issues("fixer", "200ms", "suspend: false").await?;
    fixture.await_task("fixer-42", "exists", |_| true).await?;
    await_object(&fixture.ns.api::<Deployment>(), "fixer", "one replica", replicas(1)).await?;
    let resumed = |s: &TaskSpawner| condition(&s.current(), "Suspended").is_some_and(|c| c.0 == "False");
    await_object(&spawners, "fixer", "is not suspended", resumed).await?;
    Ok(())
}
