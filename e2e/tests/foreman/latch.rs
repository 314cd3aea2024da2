//! No phase is an end: F9, F10, F11, F12, F18, F25.

use crate::world::{CODER, World, told};
use foreman_standin::types::{AgenticTask, Workload};
use foreman_standin::{Outcome, keys};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use std::time::Duration;
use taskgate_e2e::{await_gone, await_object};

#[tokio::test]
async fn f09_failed_is_no_end() -> anyhow::Result<()> {
    let world = World::start("f09").await?;
    world.failed("wl").await?;
    world.await_runs("wl", 1).await?;
    world.tasks().delete("wl-code-7", &DeleteParams::default()).await?;
    world.await_runs("wl", 2).await?;
    world.await_phase("wl", "Dispatched").await?;
    let runs = world.foreman.journal().runs_of(&world.key("wl"));
    assert_eq!(runs[0].uid, runs[1].uid);

    // Without children every write is a reason to plan; here it is the one that makes a plan possible.
    world.workload("idle", "repo: acme/app").await?;
    world.await_phase("idle", "Failed").await?;
    world.workload("idle", CODER).await?;
    world.await_phase("idle", "Dispatched").await?;
    Ok(())
}

#[tokio::test]
async fn f25_a_restart_of_the_operator_runs_what_has_failed_and_lost_its_children() -> anyhow::Result<()> {
    let world = World::start("f25").await?;
    world.failed("wl").await?;
    let world = world
        .restart(async |ns| {
            let tasks = ns.api::<AgenticTask>();
            tasks.delete("wl-code-7", &DeleteParams::default()).await?;
            await_gone(&tasks, "wl-code-7").await
        })
        .await?;
    world.await_phase("wl", "Dispatched").await?;
    world.await_runs("wl", 2).await
}

#[tokio::test]
async fn f10_the_phase_is_computed_from_the_children_that_are_left() -> anyhow::Result<()> {
    let world = World::start("f10").await?;
    world.workload("wl", &CODER.replace("[7]", "[7, 8]")).await?;
    world.finish("wl-code-7", Outcome::go()).await?;
    world
        .finish("wl-code-8", Outcome::declined("MODEL-DECIDED", "no"))
        .await?;
    world.await_phase("wl", "Failed").await?;
    world.tasks().delete("wl-code-8", &DeleteParams::default()).await?;
    let completed = world.await_phase("wl", "Completed").await?;
    assert_eq!(told(&completed, "Completed"), Some(("True", "AllChildrenSucceeded")));
    Ok(())
}

#[tokio::test]
async fn f11_every_look_moves_the_times_of_the_conditions() -> anyhow::Result<()> {
    let world = World::start("f11").await?;
    let failed = world.failed("wl").await?;
    let since = |workload: &Workload| {
        let conditions = workload.current().conditions;
        let found = conditions.iter().find(|condition| condition.type_ == "Completed");
        found.map(|condition| condition.last_transition_time.0)
    };
    // Times are whole seconds: this has to be another one.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.touch("wl", "much later").await?;
    let moved = world
        .await_workload("wl", "was failed later", |workload| since(workload) > since(&failed))
        .await?;
    assert_eq!(told(&moved, "Completed"), told(&failed, "Completed"));
    assert_eq!(moved.phase(), "Failed");
    Ok(())
}

#[tokio::test]
async fn f12_children_are_known_by_their_label_alone() -> anyhow::Result<()> {
    let world = World::start("f12").await?;
    world.failed("wl").await?;
    crate::world::hold(&world.tasks(), "wl-code-7", true).await?;
    world.workloads().delete("wl", &DeleteParams::background()).await?;
    await_gone(&world.workloads(), "wl").await?;
    // The successor takes over the old child, and has failed before it has run.
    world.workload("wl", CODER).await?;
    let adopted = world.await_phase("wl", "Failed").await?;
    assert_eq!(told(&adopted, "Completed"), Some(("False", "ChildrenIncomplete")));
    let child = world.tasks().get("wl-code-7").await?;
    assert_ne!(
        child.owner_references().first().map(|owner| owner.uid.clone()),
        adopted.uid()
    );
    // Then the collector gets it, and it runs after all.
    crate::world::hold(&world.tasks(), "wl-code-7", false).await?;
    world.await_phase("wl", "Dispatched").await?;
    world.await_runs("wl", 2).await
}

#[tokio::test]
async fn f18_the_audit_record_outlives_its_task_and_is_overwritten() -> anyhow::Result<()> {
    let world = World::start("f18").await?;
    world.failed("wl").await?;
    let audited = |task: &AgenticTask| task.annotations().contains_key(keys::AUDITED);
    let first = world.await_task("wl-code-7", "is audited", audited).await?;
    let maps = world.ns.api::<ConfigMap>();
    let holds = |map: &ConfigMap, uid: Option<String>| {
        let record = map.data.iter().flatten().find(|(key, _)| *key == "audit.json");
        record.is_some_and(|(_, record)| record.contains(&uid.unwrap_or_default()))
    };
    let record = await_object(&maps, "foreman-audit-wl-code-7", "is of the task", |map| {
        holds(map, first.uid())
    })
    .await?;
    assert!(record.owner_references().is_empty());
    world.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&world.workloads(), "wl").await?;
    assert!(holds(&maps.get("foreman-audit-wl-code-7").await?, first.uid()));
    world.failed("wl").await?;
    let second = world.await_task("wl-code-7", "is audited", audited).await?;
    await_object(&maps, "foreman-audit-wl-code-7", "is of the next task", |map| {
        holds(map, second.uid())
    })
    .await?;
    Ok(())
}
