//! From a Workload to its tasks: F1 to F5, F19, F22, F23.

use crate::world::{CODER, ISSUE, World, names, told};
use foreman_standin::types::{AgenticTask, Workload};
use foreman_standin::{Outcome, keys};
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use std::time::Duration;
use taskgate_e2e::never;

#[tokio::test]
async fn f01_a_workload_goes_from_planning_to_its_end() -> anyhow::Result<()> {
    let world = World::start("f01").await?;
    world.workload("wl", ISSUE).await?;
    let dispatched = world.await_phase("wl", "Dispatched").await?;
    assert_eq!(told(&dispatched, "Dispatched"), Some(("True", "ChildrenInFlight")));
    assert_eq!(told(&dispatched, "Completed"), None);
    assert_eq!(dispatched.current().planner_model, "stub:explicit-pipeline");
    world.finish("wl-code-7", Outcome::go()).await?;
    world.finish("wl-verify-7", Outcome::gate_pass()).await?;
    world.finish("wl-review-7-0", Outcome::go()).await?;
    let completed = world.await_phase("wl", "Completed").await?;
    assert_eq!(told(&completed, "Completed"), Some(("True", "AllChildrenSucceeded")));
    assert_eq!(completed.current().succeeded_tasks, Some(3));
    assert_eq!(
        told(&completed, "CoderAlreadyResolved"),
        Some(("False", "NoAlreadyResolved"))
    );
    Ok(())
}

#[tokio::test]
async fn f02_issues_become_code_verify_and_reviews() -> anyhow::Result<()> {
    let world = World::start("f02").await?;
    world.workload("wl", ISSUE).await?;
    world.workload("alone", CODER).await?;
    world.await_phase("wl", "Dispatched").await?;
    let children = world.children("wl").await?;
    assert_eq!(names(&children), ["wl-code-7", "wl-review-7-0", "wl-verify-7"]);
    let workload = world.workloads().get("wl").await?;
    for task in &children {
        let owner = task.owner_references().first().expect("has an owner").clone();
        assert_eq!((owner.kind.as_str(), Some(owner.uid)), ("Workload", workload.uid()));
        assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
        let step = task.name_any().replacen("wl-", "", 1);
        assert_eq!(task.labels().get(keys::STEP), Some(&step));
        assert_eq!(task.spec.payload["branch"], "foreman/wl/issue-7");
        assert_eq!(task.spec.payload["repo"], "acme/app");
    }
    let [code, review, verify] = &children[..] else {
        unreachable!("compared above")
    };
    assert!(
        code.spec.payload["promptPrefix"]
            .as_str()
            .is_some_and(|prefix| prefix.contains("Fix it."))
    );
    assert_eq!(verify.spec.depends_on, ["wl-code-7"]);
    assert_eq!(review.spec.depends_on, ["wl-verify-7"]);
    assert_eq!(review.spec.payload["openPullRequest"], true);
    world.await_phase("alone", "Dispatched").await?;
    assert_eq!(names(&world.children("alone").await?), ["alone-code-7"]);
    Ok(())
}

#[tokio::test]
async fn f03_a_pipeline_is_taken_as_written_and_wins_over_issues() -> anyhow::Result<()> {
    let world = World::start("f03").await?;
    let steps = "pipeline: [{name: code-7, kind: issue-fix, agentRef: {name: coder}, payload: {prompt: Do it.}}, \
                 {name: review-7-0, kind: review, agentRef: {name: reviewer}, dependsOn: [code-7], payload: {}}]";
    world
        .workload("wl", &format!("{CODER}, {steps}, gateProfile: {{language: rust}}"))
        .await?;
    world.await_phase("wl", "Dispatched").await?;
    let children = world.children("wl").await?;
    assert_eq!(names(&children), ["wl-code-7", "wl-review-7-0"]);
    let code = &children[0].spec;
    assert_eq!(code.payload, json!({"prompt": "Do it.", "branchStrategy": "reset"}));
    assert_eq!(code.gate_profile, Some(json!({"language": "rust"})));
    assert_eq!(children[1].spec.depends_on, ["wl-code-7"]);
    // A reviewer's NO-GO is the end of it: no further round for a pipeline.
    world.finish("wl-code-7", Outcome::go()).await?;
    world
        .finish("wl-review-7-0", Outcome::rejected("no", &json!([])))
        .await?;
    world.await_phase("wl", "Failed").await?;
    assert_eq!(world.children("wl").await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn f04_neither_issues_nor_pipeline_fails_before_there_is_a_child() -> anyhow::Result<()> {
    let world = World::start("f04").await?;
    world.workload("intent", "repo: acme/app").await?;
    world.workload("coderless", "issues: [7]").await?;
    for name in ["intent", "coderless"] {
        let failed = world.await_phase(name, "Failed").await?;
        assert_eq!(told(&failed, "Planned"), Some(("False", "NoPlannerOrPipeline")));
        assert_eq!(told(&failed, "Completed"), None);
        assert!(world.children(name).await?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn f05_a_missing_agent_fails_it_again_and_again_and_what_was_made_before_undoes_that() -> anyhow::Result<()> {
    let world = World::start("f05").await?;
    world
        .workload("none", "issues: [7], coderAgentRef: {name: late}")
        .await?;
    let failed = world.await_phase("none", "Failed").await?;
    assert_eq!(told(&failed, "Planned"), Some(("False", "AgentResolveFailed")));
    assert_eq!(told(&failed, "Completed"), None);
    assert!(world.children("none").await?.is_empty());
    // Its own writes wake the operator: it is planned again and again, and no resourceVersion holds for long.
    let version = |workload: &Workload| workload.resource_version();
    for _ in 0..3 {
        let seen = world.workloads().get("none").await?;
        let flaps = |workload: &Workload| version(workload) != version(&seen) && workload.phase() == "Planning";
        world.await_workload("none", "is planned once more", flaps).await?;
        world.await_phase("none", "Failed").await?;
    }
    world.agent("late").await?;
    world.await_phase("none", "Dispatched").await?;

    let half = "issues: [7], coderAgentRef: {name: coder}, reviewerAgentRefs: [{name: nobody}]";
    world.workload("half", half).await?;
    world.await_phase("half", "Dispatched").await?;
    assert_eq!(names(&world.children("half").await?), ["half-code-7"]);
    world.finish("half-code-7", Outcome::go()).await?;
    world.await_phase("half", "Completed").await?;
    Ok(())
}

#[tokio::test]
async fn f05_without_the_webhook_the_task_fails_instead() -> anyhow::Result<()> {
    let world = World::start_with("f05b", |options| options.webhooks = false).await?;
    world
        .workload("wl", "issues: [7], coderAgentRef: {name: nobody}")
        .await?;
    let failed = world.await_phase("wl", "Failed").await?;
    assert_eq!(told(&failed, "Completed"), Some(("False", "ChildrenFailed")));
    let task = world.tasks().get("wl-code-7").await?;
    assert_eq!(
        task.condition("Failed").map(|(_, reason, _)| reason),
        Some("AgentNotFound")
    );
    Ok(())
}

#[tokio::test]
async fn f19_unknown_fields_vanish_and_unknown_words_are_refused() -> anyhow::Result<()> {
    let world = World::start("f19").await?;
    let workload = json!({
        "apiVersion": keys::API_VERSION, "kind": "Workload", "metadata": {"name": "wl"},
        "spec": {"intent": "x", "reviseFromBranch": "b", "suspend": true, "attempt": 2},
    });
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("foreman.llmkube.dev", "v1alpha1", "Workload"));
    let api: Api<DynamicObject> = world.ns.dynamic_api(&kind);
    let created = api
        .create(&PostParams::default(), &serde_json::from_value(workload)?)
        .await?;
    assert_eq!(created.data["spec"], json!({"intent": "x"}));
    world.await_phase("wl", "Failed").await?;
    let status =
        Patch::Merge(json!({"status": {"taskStatuses": [{"name": "a"}], "startTime": "2026-01-01T00:00:00Z"}}));
    api.patch_status("wl", &PatchParams::default(), &status).await?;
    let status = api.get("wl").await?.data["status"].clone();
    assert_eq!(
        (&status["taskStatuses"], &status["startTime"]),
        (&Value::Null, &Value::Null)
    );
    let unknown = Patch::Merge(json!({"status": {"phase": "Retrying"}}));
    let refused = api.patch_status("wl", &PatchParams::default(), &unknown).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("Unsupported value: \"Retrying\"")));
    // An agent's result is its own.
    world.workload("own", CODER).await?;
    let own = Outcome::go().with_extra("anything", json!({"at": ["all"]}));
    let task = world.finish("own-code-7", own).await?;
    let result = task.current().result.unwrap_or_default();
    assert_eq!(result.pointer("/extra/anything/at/0"), Some(&json!("all")));
    Ok(())
}

#[tokio::test]
async fn f22_tasks_inherit_neither_labels_nor_annotations() -> anyhow::Result<()> {
    let world = World::start("f22").await?;
    let yaml = crate::world::workload("wl", CODER).replace(
        "{name: wl}",
        "{name: wl, labels: {team: a}, annotations: {foreman.llmkube.dev/attempt: '2'}}",
    );
    world.ns.apply_yaml(&yaml).await?;
    let task = world.await_task("wl-code-7", "exists", |_| true).await?;
    assert_eq!(task.labels().keys().collect::<Vec<_>>(), [keys::STEP, keys::WORKLOAD]);
    assert!(task.annotations().is_empty());
    world.await_runs("wl", 1).await?;
    let runs = world.foreman.journal().runs_of(&world.key("wl"));
    assert_eq!(runs[0].attempt.as_deref(), Some("2"));
    Ok(())
}

#[tokio::test]
async fn f23_a_name_that_no_label_can_hold_looks_like_a_missing_agent() -> anyhow::Result<()> {
    let world = World::start("f23").await?;
    let name = "w".repeat(64);
    world.workload(&name, CODER).await?;
    let failed = world.await_phase(&name, "Failed").await?;
    let (status, reason, message) = failed.condition("Planned").expect("tells why");
    assert_eq!((status, reason), ("False", "AgentResolveFailed"));
    assert!(message.contains("must be no more than 63"), "{message}");
    assert!(world.tasks().list(&ListParams::default()).await?.items.is_empty());
    Ok(())
}

#[tokio::test]
async fn f17_what_depends_on_nothing_that_exists_waits_for_ever() -> anyhow::Result<()> {
    let world = World::start("f17").await?;
    let steps = "pipeline: [{name: late, kind: verify, agentRef: {name: gate}, dependsOn: [nobody], payload: {}}]";
    world.workload("wl", steps).await?;
    world
        .await_task("wl-late", "is pending", |task| task.phase() == "Pending")
        .await?;
    never("it is scheduled, or given up", Duration::from_secs(2), async || {
        let task: AgenticTask = world.tasks().get("wl-late").await?;
        let workload: Workload = world.workloads().get("wl").await?;
        let moved = task.phase() != "Pending" || workload.phase() == "Failed";
        Ok(moved.then_some((task, workload)))
    })
    .await
}
