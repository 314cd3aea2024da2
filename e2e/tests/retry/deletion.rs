//! Making room, and what stands in the way: A20 to A24, A26 to A28.

use anyhow::ensure;
use foreman_standin::{Outcome, keys, types::Workload};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{AuditEvent, PATIENCE, await_gone, await_object, eventually, never};

use crate::{
    steps::{BLOCKED, HOLD, QUIET, annotated, reviewed, stuck, three, workload},
    world::{World, said},
};

#[tokio::test]
async fn a20_a22_it_is_deleted_in_the_foreground_as_the_object_that_was_read() -> anyhow::Result<()> {
    let world = World::start("a20", three(json!({}))).await?;
    let mark = world.cp.audit().mark()?;
    let first = world.fail_new("wl").await?;
    world.next(&first).await?;
    let events = world.cp.audit().since(mark).await?;
    let deletions: Vec<_> = events
        .iter()
        .filter(|event| {
            let object = &event.object_ref;
            event.verb == "delete" && object.resource == "workloads" && object.namespace == world.ns.name()
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
            event.verb == "create" && object.resource == "workloads" && object.namespace == world.ns.name()
        })
        .map(AuditEvent::code)
        .collect();
    assert_eq!(creates, [201, 409, 201], "the test's own, the dry run, the successor");
    Ok(())
}

#[tokio::test]
async fn a21_the_successor_waits_until_the_last_child_is_gone() -> anyhow::Result<()> {
    let world = World::start("a21", three(json!({}))).await?;
    world.make(&annotated("wl", &json!({keys::LINGERS: "4"}))).await?;
    let first = world.end("wl", stuck()).await?;
    let second = world.next(&first).await?;
    world.child_of(&second, "code-7").await?;
    ensure!(
        second.phase() != "Failed",
        "it took over what was left: {:?}",
        second.current()
    );
    assert_eq!(world.runs("wl"), 2);
    Ok(())
}

/// Takes more than a minute: that long a deletion is given.
#[tokio::test]
async fn a23_a_finalizer_on_the_workload_itself_is_named_and_never_taken_off() -> anyhow::Result<()> {
    let world = World::start("a23", three(json!({}))).await?;
    let mut object = workload("wl");
    object["metadata"]["finalizers"] = json!([HOLD]);
    world.make(&object).await?;
    let first = world.end("wl", stuck()).await?;
    let memory = world.reason("wl", "RetryBlocked", BLOCKED).await?;
    let (_, message) = said(memory.status.as_ref().expect("has said something"));
    ensure!(message.contains("Workload wl is held by"), "{message}");
    ensure!(message.contains(HOLD), "{message}");
    let held = world.workloads().get("wl").await?;
    ensure!(
        held.finalizers().iter().any(|finalizer| finalizer == HOLD),
        "{:?}",
        held.finalizers()
    );
    world.patch("wl", json!({"finalizers": null})).await?;
    let second = world.next(&first).await?;
    ensure!(second.finalizers().is_empty(), "{:?}", second.finalizers());
    Ok(())
}

#[tokio::test]
async fn a21_a_gates_job_that_belongs_to_nobody_is_waited_for() -> anyhow::Result<()> {
    let world = World::with("gate", three(json!({})), |mut options| {
        options.gate_jobs = true;
        options
    })
    .await?;
    world.make(&reviewed("wl")).await?;
    world.finish("wl-code-7", Outcome::go()).await?;
    // The gate's node is lost: the task fails, its Job goes on.
    let task = "wl-verify-7";
    eventually("the gate's Job runs", PATIENCE, async || {
        let pods = pods(&world, task).await?;
        ensure!(pods.len() == 1, "{} pods", pods.len());
        Ok(())
    })
    .await?;
    let status =
        json!({"status": {"phase": "Failed", "verdict": "INCOMPLETE", "failureReason": "InfrastructureError"}});
    let children = world.children();
    children
        .patch_status(task, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let first = world.phase("wl", "Failed").await?;
    await_gone(&world.workloads(), "wl").await?;
    never("it is made anew beside it", QUIET, async || {
        Ok(world.workloads().get_opt("wl").await?)
    })
    .await?;
    for pod in pods(&world, task).await? {
        let done = Patch::Merge(json!({"status": {"phase": "Failed"}}));
        world
            .ns
            .api::<Pod>()
            .patch_status(&pod.name_any(), &PatchParams::default(), &done)
            .await?;
    }
    world.next(&first).await?;
    // One that has ended is kept for a day, and hinders nobody.
    let of_task = ListParams::default().labels(&format!("{}={task}", keys::TASK_NAME));
    assert_eq!(world.ns.api::<Job>().list(&of_task).await?.items.len(), 1);
    Ok(())
}

async fn pods(world: &World, task: &str) -> anyhow::Result<Vec<Pod>> {
    let of_task = ListParams::default().labels(&format!("{}={task}", keys::TASK_NAME));
    Ok(world.ns.api::<Pod>().list(&of_task).await?.items)
}

#[tokio::test]
async fn a26_a27_the_successor_is_what_its_predecessor_was_asked_to_be() -> anyhow::Result<()> {
    let world = World::start("a26", three(json!({}))).await?;
    world
        .ns
        .apply_yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: owner}}")
        .await?;
    let owner: Value = serde_json::from_str(
        &world
            .ns
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
    world.make(&object).await?;
    let first = world.end("wl", stuck()).await?;
    let second = world.next(&first).await?;
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
async fn a28_only_what_failed_is_deleted() -> anyhow::Result<()> {
    let world = World::start("a28", three(json!({}))).await?;
    for name in ["runs", "done"] {
        world.make(&workload(name)).await?;
    }
    world.finish("done-code-7", Outcome::go()).await?;
    let done = world.phase("done", "Completed").await?;
    let runs = world.phase("runs", "Dispatched").await?;
    let failed = world.fail_new("failed").await?;
    world.next(&failed).await?;
    for object in [done, runs] {
        assert_eq!(world.workloads().get(&object.name_any()).await?.uid(), object.uid());
    }
    Ok(())
}

/// Before LLMKube#950 the operator gives a Workload that is being deleted new children: here as long as somebody's
/// finalizer keeps it.
#[tokio::test]
async fn a24_an_old_foreman_that_works_on_what_is_deleted_is_waited_for() -> anyhow::Result<()> {
    let world = World::with("a24", three(json!({})), |mut options| {
        options.renders_terminating = true;
        options
    })
    .await?;
    let mut object = workload("wl");
    object["metadata"]["finalizers"] = json!([HOLD]);
    world.make(&object).await?;
    let first = world.end("wl", stuck()).await?;
    eventually(
        "it has a new child although it is being deleted",
        PATIENCE,
        async || {
            let runs = world.runs("wl");
            ensure!(runs == 2, "{runs} runs");
            Ok(())
        },
    )
    .await?;
    let other = world.fail_new("other").await?;
    world.next(&other).await?;
    let kept: Workload = world.workloads().get("wl").await?;
    ensure!(kept.uid() == first.uid() && kept.metadata.deletion_timestamp.is_some());
    world.patch("wl", json!({"finalizers": null})).await?;
    let second = world.next(&first).await?;
    world.child_of(&second, "code-7").await?;
    Ok(())
}

#[tokio::test]
async fn what_somebody_deletes_while_it_runs_is_not_made_anew() -> anyhow::Result<()> {
    let world = World::start("first", three(json!({}))).await?;
    world.make(&workload("wl")).await?;
    world.phase("wl", "Dispatched").await?;
    world.hold("wl-code-7", true).await?;
    world.workloads().delete("wl", &DeleteParams::foreground()).await?;
    // It fails while it goes.
    let patch = Patch::Merge(json!({"status": {"phase": "Failed"}}));
    world
        .workloads()
        .patch_status("wl", &PatchParams::default(), &patch)
        .await?;
    await_object(&world.workloads(), "wl", "is failed, and goes", |wl| {
        wl.phase() == "Failed"
    })
    .await?;
    world.hold("wl-code-7", false).await?;
    await_gone(&world.workloads(), "wl").await?;
    never("it is made anew", QUIET, async || {
        Ok(world.workloads().get_opt("wl").await?)
    })
    .await
}
