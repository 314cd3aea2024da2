//! The policy at the time of the retry applies, not that at the time of creation.

use anyhow::ensure;
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_e2e::{attempt_number, await_object, stuck};

use crate::support::{annotated, apply_retry, fail_new, quick, start, three, workload};

#[tokio::test]
async fn the_successor_is_built_under_the_current_policy() -> anyhow::Result<()> {
    let fixture = start("a29", three(json!({}))).await?;
    let first = fail_new(&fixture, "wl").await?;
    ensure!(first.spec.gate_profile.is_none(), "absent by default");
    let second = fixture.await_successor(&first).await?;
    ensure!(second.spec.gate_profile.is_none() && second.spec.coder_agent_ref == first.spec.coder_agent_ref);
    let overrides = json!({
        "workload": {
            "coderAgentRef": {"name": "strong"}, "gateProfile": {"language": "rust"}, "verdictPolicy": {"selfGO": ["docs"]},
        },
        "labels": {"lane": "frontier"},
    });
    apply_retry(&fixture, three(json!({"overrides": overrides}))).await?;
    fixture.end("wl", stuck()).await?;
    let third = fixture.await_successor(&second).await?;
    assert_eq!(
        third.spec.coder_agent_ref.as_ref().map(|agent| agent.name.as_str()),
        Some("strong")
    );
    assert_eq!(third.spec.gate_profile, Some(json!({"language": "rust"})));
    assert_eq!(third.spec.verdict_policy, Some(json!({"selfGO": ["docs"]})));
    assert_eq!(third.labels().get("lane").map(String::as_str), Some("frontier"));
    let child = fixture.await_child(&third, "code-7").await?;
    assert_eq!(child.spec.agent_ref.map(|agent| agent.name).as_deref(), Some("strong"));
    assert_eq!(child.spec.gate_profile, Some(json!({"language": "rust"})));
    Ok(())
}

/// taskgate does not review Workloads: what a Task gets at admission, a Workload's successor is created with.
#[tokio::test]
async fn labels_and_queue_are_those_of_the_current_policy() -> anyhow::Result<()> {
    let fixture = start("a35", three(json!({}))).await?;
    let first = fail_new(&fixture, "wl").await?;
    let second = fixture.await_successor(&first).await?;
    ensure!(second.labels().is_empty(), "{:?}", second.labels());
    let spec = json!({
        "retry": quick(three(json!({"overrides": {"labels": {"lane": "frontier"}}}))),
        "queueName": "agents",
        "metadata": {"labels": {"lane": "local", "team": "{{ namespace.name }}"}, "annotations": {"from": "{{ task.metadata.name }}"}},
    });
    fixture.apply_policy("retry", &spec).await?;
    fixture.await_policy_accepted("retry").await?;
    fixture.end("wl", stuck()).await?;
    let third = fixture.await_successor(&second).await?;
    let label = |key: &str| third.labels().get(key).map(String::as_str);
    assert_eq!(label("lane"), Some("frontier"), "overrides come first");
    assert_eq!(label("team"), Some(fixture.ns.name()));
    assert_eq!(label("kueue.x-k8s.io/queue-name"), Some("agents"));
    assert_eq!(third.annotations().get("from").map(String::as_str), Some("wl"));
    assert_eq!(attempt_number(&third), Some("3"));
    Ok(())
}

#[tokio::test]
async fn every_run_names_its_agent_and_issue() -> anyhow::Result<()> {
    let fixture = start("a06", three(json!({}))).await?;
    let mut object = annotated(
        "stated",
        &json!({"foreman.llmkube.dev/issue-id": "i-77", "foreman.llmkube.dev/agent-name": "foreman/coder"}),
    );
    object["metadata"]["labels"] = json!({"lane": "local"});
    fixture.created(&object).await?;
    let first = fixture.end("stated", stuck()).await?;
    let second = fixture.await_successor(&first).await?;
    let stamp = |key: &str| second.annotations().get(&format!("foreman.llmkube.dev/{key}")).cloned();
    assert_eq!(stamp("issue-id").as_deref(), Some("i-77"));
    assert_eq!(stamp("agent-name").as_deref(), Some("foreman/coder"));
    assert_eq!(second.labels().get("lane").map(String::as_str), Some("local"));
    assert_eq!(
        (&second.spec.repo, &second.spec.issues, &second.spec.intent),
        (&first.spec.repo, &first.spec.issues, &first.spec.intent)
    );

    apply_retry(&fixture, three(json!({"annotationPrefix": "acme.dev/"}))).await?;
    let first = fail_new(&fixture, "bare").await?;
    let second = fixture.await_successor(&first).await?;
    let stamp = |key: &str| second.annotations().get(&format!("acme.dev/{key}")).cloned();
    assert_eq!(stamp("attempt").as_deref(), Some("2"));
    assert_eq!(stamp("issue-id").as_deref(), Some("7"));
    assert_eq!(stamp("agent-name").as_deref(), Some("coder"));
    Ok(())
}

#[tokio::test]
async fn the_issue_survives_the_second_and_the_third_run() -> anyhow::Result<()> {
    let fixture = start("a46", three(json!({}))).await?;
    let mut object = workload("wl-acme-app-42");
    object["spec"]["issues"] = json!([42]);
    fixture.created(&object).await?;
    let mut before = await_object(&fixture.workloads(), "wl-acme-app-42", "is there", |_| true).await?;
    for _ in 0..2 {
        fixture.finish("wl-acme-app-42-code-42", stuck()).await?;
        let next = fixture.await_successor(&before).await?;
        assert_eq!(next.spec.issues, [42]);
        let id = next.annotations().get("foreman.llmkube.dev/issue-id").cloned();
        assert_eq!(id.as_deref(), Some("42"));
        before = next;
    }
    let child = fixture.await_child(&before, "code-42").await?;
    assert_eq!(child.spec.payload["branch"], "foreman/wl-acme-app-42/issue-42");
    Ok(())
}
