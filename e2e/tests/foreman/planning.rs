//! From a Workload to its tasks: F1 to F5, F19, F22, F23.

use crate::support::{ISSUE, await_runs, children, names, start, start_with, status_and_reason};
use foreman_standin::types::{AgenticTask, Workload};
use foreman_standin::{Outcome, keys};
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use std::time::Duration;
use taskgate_e2e::{CODER, never};

#[tokio::test]
async fn f01_a_workload_goes_from_planning_to_its_end() -> anyhow::Result<()> {
    let fixture = start("f01").await?;
    fixture.workload("wl", ISSUE).await?;
    let dispatched = fixture.await_workload_phase("wl", "Dispatched").await?;
    assert_eq!(
        status_and_reason(&dispatched, "Dispatched"),
        Some(("True", "ChildrenInFlight"))
    );
    assert_eq!(status_and_reason(&dispatched, "Completed"), None);
    assert_eq!(dispatched.current().planner_model, "stub:explicit-pipeline");
    fixture.finish("wl-code-7", Outcome::go()).await?;
    fixture.finish("wl-verify-7", Outcome::gate_pass()).await?;
    fixture.finish("wl-review-7-0", Outcome::go()).await?;
    let completed = fixture.await_workload_phase("wl", "Completed").await?;
    assert_eq!(
        status_and_reason(&completed, "Completed"),
        Some(("True", "AllChildrenSucceeded"))
    );
    assert_eq!(completed.current().succeeded_tasks, Some(3));
    assert_eq!(
        status_and_reason(&completed, "CoderAlreadyResolved"),
        Some(("False", "NoAlreadyResolved"))
    );
    Ok(())
}

#[tokio::test]
async fn f02_issues_become_code_verify_and_reviews() -> anyhow::Result<()> {
    let fixture = start("f02").await?;
    fixture.workload("wl", ISSUE).await?;
    fixture.workload("alone", CODER).await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    let tasks = children(&fixture, "wl").await?;
    assert_eq!(names(&tasks), ["wl-code-7", "wl-review-7-0", "wl-verify-7"]);
    let workload = fixture.workloads().get("wl").await?;
    for task in &tasks {
        let owner = task.owner_references().first().expect("has an owner").clone();
        assert_eq!((owner.kind.as_str(), Some(owner.uid)), ("Workload", workload.uid()));
        assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
        let step = task.name_any().replacen("wl-", "", 1);
        assert_eq!(task.labels().get(keys::STEP), Some(&step));
        assert_eq!(task.spec.payload["branch"], "foreman/wl/issue-7");
        assert_eq!(task.spec.payload["repo"], "acme/app");
    }
    let [code, review, verify] = &tasks[..] else {
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
    fixture.await_workload_phase("alone", "Dispatched").await?;
    assert_eq!(names(&children(&fixture, "alone").await?), ["alone-code-7"]);
    Ok(())
}

#[tokio::test]
async fn f03_a_pipeline_is_taken_as_written_and_wins_over_issues() -> anyhow::Result<()> {
    let fixture = start("f03").await?;
    let steps = "pipeline: [{name: code-7, kind: issue-fix, agentRef: {name: coder}, payload: {prompt: Do it.}}, \
                 {name: review-7-0, kind: review, agentRef: {name: reviewer}, dependsOn: [code-7], payload: {}}]";
    fixture
        .workload("wl", &format!("{CODER}, {steps}, gateProfile: {{language: rust}}"))
        .await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    let tasks = children(&fixture, "wl").await?;
    assert_eq!(names(&tasks), ["wl-code-7", "wl-review-7-0"]);
    let code = &tasks[0].spec;
    assert_eq!(code.payload, json!({"prompt": "Do it.", "branchStrategy": "reset"}));
    assert_eq!(code.gate_profile, Some(json!({"language": "rust"})));
    assert_eq!(tasks[1].spec.depends_on, ["wl-code-7"]);
    // A reviewer's NO-GO is the end of it: no further round for a pipeline.
    fixture.finish("wl-code-7", Outcome::go()).await?;
    fixture
        .finish("wl-review-7-0", Outcome::rejected("no", &json!([])))
        .await?;
    fixture.await_workload_phase("wl", "Failed").await?;
    assert_eq!(children(&fixture, "wl").await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn f04_neither_issues_nor_pipeline_fails_before_there_is_a_child() -> anyhow::Result<()> {
    let fixture = start("f04").await?;
    fixture.workload("intent", "repo: acme/app").await?;
    fixture.workload("coderless", "issues: [7]").await?;
    for name in ["intent", "coderless"] {
        let failed = fixture.await_workload_phase(name, "Failed").await?;
        assert_eq!(
            status_and_reason(&failed, "Planned"),
            Some(("False", "NoPlannerOrPipeline"))
        );
        assert_eq!(status_and_reason(&failed, "Completed"), None);
        assert!(children(&fixture, name).await?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn f05_a_missing_agent_fails_it_again_and_again_and_what_was_made_before_undoes_that() -> anyhow::Result<()> {
    let fixture = start("f05").await?;
    fixture
        .workload("none", "issues: [7], coderAgentRef: {name: late}")
        .await?;
    let failed = fixture.await_workload_phase("none", "Failed").await?;
    assert_eq!(
        status_and_reason(&failed, "Planned"),
        Some(("False", "AgentResolveFailed"))
    );
    assert_eq!(status_and_reason(&failed, "Completed"), None);
    assert!(children(&fixture, "none").await?.is_empty());
    // Its own writes wake the operator: it is planned again and again, and no resourceVersion holds for long.
    let version = |workload: &Workload| workload.resource_version();
    for _ in 0..3 {
        let seen = fixture.workloads().get("none").await?;
        let flaps = |workload: &Workload| version(workload) != version(&seen) && workload.phase() == "Planning";
        fixture.await_workload("none", "is planned once more", flaps).await?;
        fixture.await_workload_phase("none", "Failed").await?;
    }
    let late = "{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Agent, metadata: {name: late}, \
                spec: {role: coder, tools: [bash]}}";
    fixture.apply_yaml(late).await?;
    fixture.await_workload_phase("none", "Dispatched").await?;

    let half = "issues: [7], coderAgentRef: {name: coder}, reviewerAgentRefs: [{name: missing}]";
    fixture.workload("half", half).await?;
    fixture.await_workload_phase("half", "Dispatched").await?;
    assert_eq!(names(&children(&fixture, "half").await?), ["half-code-7"]);
    fixture.finish("half-code-7", Outcome::go()).await?;
    fixture.await_workload_phase("half", "Completed").await?;
    Ok(())
}

#[tokio::test]
async fn f05_without_the_webhook_the_task_fails_instead() -> anyhow::Result<()> {
    let fixture = start_with("f05b", |options| options.webhooks = false).await?;
    fixture
        .workload("wl", "issues: [7], coderAgentRef: {name: missing}")
        .await?;
    let failed = fixture.await_workload_phase("wl", "Failed").await?;
    assert_eq!(
        status_and_reason(&failed, "Completed"),
        Some(("False", "ChildrenFailed"))
    );
    let task = fixture.agentic_tasks().get("wl-code-7").await?;
    assert_eq!(
        task.condition("Failed").map(|(_, reason, _)| reason),
        Some("AgentNotFound")
    );
    Ok(())
}

#[tokio::test]
async fn f19_unknown_fields_vanish_and_unknown_words_are_refused() -> anyhow::Result<()> {
    let fixture = start("f19").await?;
    let workload = json!({
        "apiVersion": keys::API_VERSION, "kind": "Workload", "metadata": {"name": "wl"},
        "spec": {"intent": "x", "reviseFromBranch": "b", "suspend": true, "attempt": 2},
    });
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("foreman.llmkube.dev", "v1alpha1", "Workload"));
    let api: Api<DynamicObject> = fixture.dynamic_api(&kind);
    let created = api
        .create(&PostParams::default(), &serde_json::from_value(workload)?)
        .await?;
    assert_eq!(created.data["spec"], json!({"intent": "x"}));
    fixture.await_workload_phase("wl", "Failed").await?;
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
    fixture.workload("own", CODER).await?;
    let own = Outcome::go().with_extra("anything", json!({"at": ["all"]}));
    let task = fixture.finish("own-code-7", own).await?;
    let result = task.current().result.unwrap_or_default();
    assert_eq!(result.pointer("/extra/anything/at/0"), Some(&json!("all")));
    Ok(())
}

#[tokio::test]
async fn f22_tasks_inherit_neither_labels_nor_annotations() -> anyhow::Result<()> {
    let fixture = start("f22").await?;
    let metadata = "labels: {team: a}, annotations: {foreman.llmkube.dev/attempt: '2'}";
    fixture.workload_with("wl", metadata, CODER).await?;
    let task = fixture.await_agentic_task("wl-code-7", "exists", |_| true).await?;
    assert_eq!(task.labels().keys().collect::<Vec<_>>(), [keys::STEP, keys::WORKLOAD]);
    assert!(task.annotations().is_empty());
    await_runs(&fixture, "wl", 1).await?;
    let runs = fixture.foreman.journal().runs_of(&fixture.key("wl"));
    assert_eq!(runs[0].attempt.as_deref(), Some("2"));
    Ok(())
}

#[tokio::test]
async fn f23_a_name_that_is_no_label_value_has_the_same_condition_as_a_missing_agent() -> anyhow::Result<()> {
    let fixture = start("f23").await?;
    let name = "w".repeat(64);
    fixture.workload(&name, CODER).await?;
    let failed = fixture.await_workload_phase(&name, "Failed").await?;
    let (status, reason, message) = failed.condition("Planned").expect("tells why");
    assert_eq!((status, reason), ("False", "AgentResolveFailed"));
    assert!(message.contains("must be no more than 63"), "{message}");
    assert!(
        fixture
            .agentic_tasks()
            .list(&ListParams::default())
            .await?
            .items
            .is_empty()
    );
    Ok(())
}

#[tokio::test]
async fn f17_what_depends_on_nothing_that_exists_waits_for_ever() -> anyhow::Result<()> {
    let fixture = start("f17").await?;
    let steps = "pipeline: [{name: late, kind: verify, agentRef: {name: gate}, dependsOn: [missing], payload: {}}]";
    fixture.workload("wl", steps).await?;
    fixture
        .await_agentic_task("wl-late", "is pending", |task| task.phase() == "Pending")
        .await?;
    never("it is scheduled, or given up", Duration::from_secs(2), async || {
        let task: AgenticTask = fixture.agentic_tasks().get("wl-late").await?;
        let workload: Workload = fixture.workloads().get("wl").await?;
        let moved = task.phase() != "Pending" || workload.phase() == "Failed";
        Ok(moved.then_some((task, workload)))
    })
    .await
}
