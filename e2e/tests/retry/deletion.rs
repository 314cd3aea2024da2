//! Deletion of the failed object, what blocks it, and the successor.

use std::time::Duration;

use anyhow::ensure;
use foreman_standin::{
    Outcome, keys,
    types::{AgenticTask, Workload},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{
    AuditEvent, FOREIGN_FINALIZER, ForemanFixture, PATIENCE, await_gone, await_object, eventually, never, stuck,
};

use crate::support::{
    QUIET, annotated, await_reason_within, fail_new, retry_condition, reviewed, start, start_with, three, workload,
};

/// More than the 60 s after which a blocked retry is reported.
const BLOCKED: Duration = Duration::from_mins(2);

#[tokio::test]
async fn it_is_deleted_in_the_foreground_with_the_version_that_was_read() -> anyhow::Result<()> {
    let fixture = start("a20", three(json!({}))).await?;
    let mark = fixture.cp.audit().mark()?;
    let first = fail_new(&fixture, "wl").await?;
    fixture.await_successor(&first).await?;
    let events = fixture.cp.audit().since(mark).await?;
    let deletions: Vec<_> = events
        .iter()
        .filter(|event| {
            let object = &event.object_ref;
            event.verb == "delete" && object.resource == "workloads" && object.namespace == fixture.ns.name()
        })
        .collect();
    ensure!(deletions.len() == 1, "{} deletions", deletions.len());
    let options = deletions[0].request_object.clone().unwrap_or_default();
    assert_eq!(options["propagationPolicy"], "Foreground");
    let preconditions = &options["preconditions"];
    assert_eq!(preconditions["uid"].as_str(), first.uid().as_deref());
    ensure!(preconditions["resourceVersion"].is_string(), "{options}");
    // A dry run asked before, and nothing was created before the old one was gone.
    let creates: Vec<_> = events
        .iter()
        .filter(|event| {
            let object = &event.object_ref;
            event.verb == "create" && object.resource == "workloads" && object.namespace == fixture.ns.name()
        })
        .map(AuditEvent::code)
        .collect();
    assert_eq!(creates, [201, 409, 201], "the test's own, the dry run, the successor");
    Ok(())
}

#[tokio::test]
async fn the_successor_waits_until_the_last_child_is_gone() -> anyhow::Result<()> {
    let fixture = start("a21", three(json!({}))).await?;
    fixture.created(&annotated("wl", &json!({keys::LINGERS: "4"}))).await?;
    let first = fixture.end("wl", stuck()).await?;
    let second = fixture.await_successor(&first).await?;
    fixture.await_child(&second, "code-7").await?;
    ensure!(
        second.phase() != "Failed",
        "it took over what was left: {:?}",
        second.current()
    );
    assert_eq!(fixture.runs("wl"), 2);
    Ok(())
}

/// Takes more than a minute: a deletion has that long.
#[tokio::test]
async fn a_finalizer_on_the_workload_itself_is_named_and_never_removed() -> anyhow::Result<()> {
    let fixture = start("a23", three(json!({}))).await?;
    let mut object = workload("wl");
    object["metadata"]["finalizers"] = json!([FOREIGN_FINALIZER]);
    fixture.created(&object).await?;
    let first = fixture.end("wl", stuck()).await?;
    let item = await_reason_within(BLOCKED, &fixture, "wl", "RetryBlocked").await?;
    let (_, message) = retry_condition(item.status.as_ref().expect("has a status"));
    ensure!(message.contains("Workload wl is held by"), "{message}");
    ensure!(message.contains(FOREIGN_FINALIZER), "{message}");
    let kept = fixture.workloads().get("wl").await?;
    ensure!(
        kept.finalizers().iter().any(|finalizer| finalizer == FOREIGN_FINALIZER),
        "{:?}",
        kept.finalizers()
    );
    fixture
        .patch_metadata::<Workload>("wl", &json!({"finalizers": null}))
        .await?;
    let second = fixture.await_successor(&first).await?;
    ensure!(second.finalizers().is_empty(), "{:?}", second.finalizers());
    Ok(())
}

#[tokio::test]
async fn a_gates_job_without_an_owner_is_awaited() -> anyhow::Result<()> {
    let fixture = start_with("gate", three(json!({})), |mut options| {
        options.gate_jobs = true;
        options
    })
    .await?;
    fixture.created(&reviewed("wl")).await?;
    fixture.finish("wl-code-7", Outcome::go()).await?;
    // The gate's node is lost: the task fails, its Job goes on.
    let task = "wl-verify-7";
    eventually("the gate's Job runs", PATIENCE, async || {
        let pods = pods(&fixture, task).await?;
        ensure!(pods.len() == 1, "{} pods", pods.len());
        Ok(())
    })
    .await?;
    let status =
        json!({"status": {"phase": "Failed", "verdict": "INCOMPLETE", "failureReason": "InfrastructureError"}});
    let children = fixture.agentic_tasks();
    children
        .patch_status(task, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let first = fixture.await_workload_phase("wl", "Failed").await?;
    await_gone(&fixture.workloads(), "wl").await?;
    never("it is created anew beside it", QUIET, async || {
        Ok(fixture.workloads().get_opt("wl").await?)
    })
    .await?;
    for pod in pods(&fixture, task).await? {
        let done = Patch::Merge(json!({"status": {"phase": "Failed"}}));
        fixture
            .pods()
            .patch_status(&pod.name_any(), &PatchParams::default(), &done)
            .await?;
    }
    fixture.await_successor(&first).await?;
    // A Job that has ended is kept for a day, and blocks nothing.
    let of_task = ListParams::default().labels(&format!("{}={task}", keys::TASK_NAME));
    assert_eq!(fixture.jobs().list(&of_task).await?.items.len(), 1);
    Ok(())
}

async fn pods(fixture: &ForemanFixture<'_>, task: &str) -> anyhow::Result<Vec<Pod>> {
    let of_task = ListParams::default().labels(&format!("{}={task}", keys::TASK_NAME));
    Ok(fixture.pods().list(&of_task).await?.items)
}

#[tokio::test]
async fn the_successor_has_the_spec_of_its_predecessor() -> anyhow::Result<()> {
    let fixture = start("a26", three(json!({}))).await?;
    fixture
        .apply_yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: owner}}")
        .await?;
    let owner: Value = serde_json::from_str(
        &fixture
            .kubectl(["get", "cm", "owner", "-o", "json"])
            .await?
            .stdout_ok()?,
    )?;
    let mut object = annotated(
        "wl",
        &json!({"note": "mine", "foreman.llmkube.dev/terminal-since-Failed": "2026-01-01T00:00:00Z"}),
    );
    object["metadata"]["labels"] = json!({"team": "blue"});
    object["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
    object["spec"] = json!({
        "intent": "Fix it.", "repo": "acme/wl", "verdictPolicy": {"selfGO": ["docs"]},
        "pipeline": [{
            "name": "code-7", "kind": "issue-fix", "agentRef": {"name": "coder"}, "timeoutSeconds": 60,
            "payload": {"issue": 7, "prompt": "Do it.", "branchStrategy": "rebase", "reviseFromBranch": "b"},
        }],
    });
    fixture.created(&object).await?;
    let first = fixture.end("wl", stuck()).await?;
    let second = fixture.await_successor(&first).await?;
    assert_eq!(second.spec, first.spec);
    assert_eq!(second.labels(), first.labels());
    assert_eq!(second.owner_references(), first.owner_references());
    assert_eq!(second.annotations().get("note").map(String::as_str), Some("mine"));
    ensure!(
        !second.annotations().keys().any(|key| key.contains("terminal-since")),
        "{:?}",
        second.annotations()
    );
    ensure!(second.finalizers().is_empty() && second.metadata.deletion_timestamp.is_none());
    Ok(())
}

#[tokio::test]
async fn only_failed_objects_are_deleted() -> anyhow::Result<()> {
    let fixture = start("a28", three(json!({}))).await?;
    for name in ["runs", "done"] {
        fixture.created(&workload(name)).await?;
    }
    fixture.finish("done-code-7", Outcome::go()).await?;
    let done = fixture.await_workload_phase("done", "Completed").await?;
    let runs = fixture.await_workload_phase("runs", "Dispatched").await?;
    let failed = fail_new(&fixture, "failed").await?;
    fixture.await_successor(&failed).await?;
    for object in [done, runs] {
        assert_eq!(fixture.workloads().get(&object.name_any()).await?.uid(), object.uid());
    }
    Ok(())
}

/// Before LLMKube#950 the operator gives a Workload that is being deleted new children: here while a foreign
/// finalizer keeps it.
#[tokio::test]
async fn an_old_foreman_that_works_on_a_deleted_workload_is_awaited() -> anyhow::Result<()> {
    let fixture = start_with("a24", three(json!({})), |mut options| {
        options.renders_terminating = true;
        options
    })
    .await?;
    let mut object = workload("wl");
    object["metadata"]["finalizers"] = json!([FOREIGN_FINALIZER]);
    fixture.created(&object).await?;
    let first = fixture.end("wl", stuck()).await?;
    eventually(
        "it has a new child although it is being deleted",
        PATIENCE,
        async || {
            let runs = fixture.runs("wl");
            ensure!(runs == 2, "{runs} runs");
            Ok(())
        },
    )
    .await?;
    let other = fail_new(&fixture, "other").await?;
    fixture.await_successor(&other).await?;
    let kept: Workload = fixture.workloads().get("wl").await?;
    ensure!(kept.uid() == first.uid() && kept.metadata.deletion_timestamp.is_some());
    fixture
        .patch_metadata::<Workload>("wl", &json!({"finalizers": null}))
        .await?;
    let second = fixture.await_successor(&first).await?;
    fixture.await_child(&second, "code-7").await?;
    Ok(())
}

#[tokio::test]
async fn a_workload_that_a_user_deletes_while_it_runs_is_not_created_anew() -> anyhow::Result<()> {
    let fixture = start("first", three(json!({}))).await?;
    fixture.created(&workload("wl")).await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    fixture.set_foreign_finalizer::<AgenticTask>("wl-code-7", true).await?;
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    // It fails while it is being deleted.
    let patch = Patch::Merge(json!({"status": {"phase": "Failed"}}));
    fixture
        .workloads()
        .patch_status("wl", &PatchParams::default(), &patch)
        .await?;
    await_object(&fixture.workloads(), "wl", "is failed, and being deleted", |wl| {
        wl.phase() == "Failed"
    })
    .await?;
    fixture.set_foreign_finalizer::<AgenticTask>("wl-code-7", false).await?;
    await_gone(&fixture.workloads(), "wl").await?;
    never("it is created anew", QUIET, async || {
        Ok(fixture.workloads().get_opt("wl").await?)
    })
    .await
}
