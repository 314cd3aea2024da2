//! The spawner's status write: S13.

use crate::support::{NEVER, StandinFixture, condition};
use kelos_standin::types::TaskSpawner;
use kelos_standin::{CycleResult, Outcome};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use taskgate_e2e::{PATIENCE, await_object, eventually};

#[tokio::test]
async fn s13_the_status_is_put_whole_and_foreign_conditions_survive() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s13a").await?;
    fixture.repo().issue(42);
    fixture.spawn_issues("fixer", NEVER, "").await?;
    let spawners = fixture.ns.api::<TaskSpawner>();
    await_object(&spawners, "fixer", "has run", |s| s.phase() == "Running").await?;
    fixture.await_task_phase("fixer-42", "Running").await?;
    let mut conditions = serde_json::to_value(fixture.status("fixer").await?.conditions)?;
    let foreign = json!({"type": "ItemsCircuitBroken", "status": "True", "reason": "MaxRetriesExceeded",
        "message": "1 items skipped", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    conditions
        .as_array_mut()
        .into_iter()
        .for_each(|all| all.push(foreign.clone()));
    let patch = Patch::Merge(json!({"status": {"conditions": conditions, "totalDiscovered": 99}}));
    spawners.patch_status("fixer", &PatchParams::default(), &patch).await?;
    fixture.end("fixer-42", Outcome::succeeded()).await?;
    let rewritten = await_object(&spawners, "fixer", "was written again", |s| {
        s.current().total_discovered == 1
    });
    let status = rewritten.await?.current();
    let types = [
        "DiscoveryError",
        "Suspended",
        "MaxTotalTasksReached",
        "TaskBudgetExhausted",
    ];
    for type_ in types {
        assert!(condition(&status, type_).is_some_and(|c| c.0 == "False"), "{type_}");
    }
    let survived = condition(&status, "ItemsCircuitBroken");
    assert_eq!(survived, Some(("True", "MaxRetriesExceeded", "1 items skipped")));
    Ok(())
}

#[tokio::test]
async fn s13_a_conflict_fails_the_cycle() -> anyhow::Result<()> {
    let fixture = StandinFixture::start("s13b").await?;
    fixture.repo().issue(42);
    fixture.spawn_issues("fixer", "10ms", "").await?;
    fixture.await_cycles("fixer", CycleResult::Success, 1).await?;
    let spawners = fixture.ns.api::<TaskSpawner>();
    let failures = fixture.cycles("fixer", CycleResult::Failure);
    let mut writes = 0;
    // Nothing but conflicts can fail a cycle here.
    eventually("a busy writer of the status fails a cycle", PATIENCE, async || {
        for _ in 0..50 {
            writes += 1;
            let patch = Patch::Merge(json!({"status": {"deploymentName": format!("busy-{writes}")}}));
            spawners.patch_status("fixer", &PatchParams::default(), &patch).await?;
        }
        let now = fixture.cycles("fixer", CycleResult::Failure);
        anyhow::ensure!(now > failures, "{writes} writes, no failure");
        Ok(())
    })
    .await
}
