//! No phase is an end: F9, F10, F11, F12, F18, F25.

use crate::support::{await_runs, failed, start, status_and_reason};
use foreman_standin::types::{AgenticTask, Workload};
use foreman_standin::{Outcome, keys};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;
use std::time::Duration;
use taskgate_e2e::{CODER, await_gone, await_object};

#[tokio::test]
async fn f09_failed_is_no_end() -> anyhow::Result<()> {
    let fixture = start("f09").await?;
    failed(&fixture, "wl").await?;
    await_runs(&fixture, "wl", 1).await?;
    fixture
        .agentic_tasks()
        .delete("wl-code-7", &DeleteParams::default())
        .await?;
    await_runs(&fixture, "wl", 2).await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    let runs = fixture.foreman.journal().runs_of(&fixture.key("wl"));
    assert_eq!(runs[0].uid, runs[1].uid);

    // Without children every write is a reason to plan; here it is the one that makes a plan possible.
    fixture.workload("idle", "repo: acme/app").await?;
    fixture.await_workload_phase("idle", "Failed").await?;
    fixture.workload("idle", CODER).await?;
    fixture.await_workload_phase("idle", "Dispatched").await?;
    Ok(())
}

#[tokio::test]
async fn f25_a_restart_of_the_operator_runs_what_has_failed_and_lost_its_children() -> anyhow::Result<()> {
    let fixture = start("f25").await?;
    failed(&fixture, "wl").await?;
    let fixture = fixture
        .restart(async |ns| {
            let tasks = ns.api::<AgenticTask>();
            tasks.delete("wl-code-7", &DeleteParams::default()).await?;
            await_gone(&tasks, "wl-code-7").await
        })
        .await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    await_runs(&fixture, "wl", 2).await
}

#[tokio::test]
async fn f10_the_phase_is_computed_from_the_children_that_are_left() -> anyhow::Result<()> {
    let fixture = start("f10").await?;
    fixture.workload("wl", &CODER.replace("[7]", "[7, 8]")).await?;
    fixture.finish("wl-code-7", Outcome::go()).await?;
    fixture
        .finish("wl-code-8", Outcome::declined("MODEL-DECIDED", "no"))
        .await?;
    fixture.await_workload_phase("wl", "Failed").await?;
    fixture
        .agentic_tasks()
        .delete("wl-code-8", &DeleteParams::default())
        .await?;
    let completed = fixture.await_workload_phase("wl", "Completed").await?;
    assert_eq!(
        status_and_reason(&completed, "Completed"),
        Some(("True", "AllChildrenSucceeded"))
    );
    Ok(())
}

#[tokio::test]
async fn f11_every_reconcile_moves_the_times_of_the_conditions() -> anyhow::Result<()> {
    let fixture = start("f11").await?;
    let failed = failed(&fixture, "wl").await?;
    let since = |workload: &Workload| {
        let conditions = workload.current().conditions;
        let found = conditions.iter().find(|condition| condition.type_ == "Completed");
        found.map(|condition| condition.last_transition_time.0)
    };
    // Times are whole seconds: this has to be another one.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    fixture
        .patch_metadata::<Workload>("wl", &json!({"annotations": {"touched": "much later"}}))
        .await?;
    let moved = fixture
        .await_workload("wl", "was failed later", |workload| since(workload) > since(&failed))
        .await?;
    assert_eq!(
        status_and_reason(&moved, "Completed"),
        status_and_reason(&failed, "Completed")
    );
    assert_eq!(moved.phase(), "Failed");
    Ok(())
}

#[tokio::test]
async fn f12_children_are_known_by_their_label_alone() -> anyhow::Result<()> {
    let fixture = start("f12").await?;
    failed(&fixture, "wl").await?;
    fixture.set_foreign_finalizer::<AgenticTask>("wl-code-7", true).await?;
    fixture.workloads().delete("wl", &DeleteParams::background()).await?;
    await_gone(&fixture.workloads(), "wl").await?;
    // The successor takes over the old child, and has failed before it has run.
    fixture.workload("wl", CODER).await?;
    let adopted = fixture.await_workload_phase("wl", "Failed").await?;
    assert_eq!(
        status_and_reason(&adopted, "Completed"),
        Some(("False", "ChildrenIncomplete"))
    );
    let child = fixture.agentic_tasks().get("wl-code-7").await?;
    assert_ne!(
        child.owner_references().first().map(|owner| owner.uid.clone()),
        adopted.uid()
    );
    // Then the collector gets it, and it runs after all.
    fixture.set_foreign_finalizer::<AgenticTask>("wl-code-7", false).await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    await_runs(&fixture, "wl", 2).await
}

#[tokio::test]
async fn f18_the_audit_record_outlives_its_task_and_is_overwritten() -> anyhow::Result<()> {
    let fixture = start("f18").await?;
    failed(&fixture, "wl").await?;
    let audited = |task: &AgenticTask| task.annotations().contains_key(keys::AUDITED);
    let first = fixture.await_agentic_task("wl-code-7", "is audited", audited).await?;
    let maps = fixture.api::<ConfigMap>();
    let contains = |map: &ConfigMap, uid: Option<String>| {
        let record = map.data.iter().flatten().find(|(key, _)| *key == "audit.json");
        record.is_some_and(|(_, record)| record.contains(&uid.unwrap_or_default()))
    };
    let record = await_object(&maps, "foreman-audit-wl-code-7", "is of the task", |map| {
        contains(map, first.uid())
    })
    .await?;
    assert!(record.owner_references().is_empty());
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&fixture.workloads(), "wl").await?;
    assert!(contains(&maps.get("foreman-audit-wl-code-7").await?, first.uid()));
    failed(&fixture, "wl").await?;
    let second = fixture.await_agentic_task("wl-code-7", "is audited", audited).await?;
    await_object(&maps, "foreman-audit-wl-code-7", "is of the next task", |map| {
        contains(map, second.uid())
    })
    .await?;
    Ok(())
}
