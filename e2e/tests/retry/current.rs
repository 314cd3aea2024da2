//! Today's policy, not that of the day of creation: A02, A06, A07, A29, A31, A34 to A37, A46.

use anyhow::ensure;
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_e2e::await_object;

use crate::{
    steps::{annotated, number, stuck, three, workload},
    world::{World, quick},
};

#[tokio::test]
async fn a02_a29_a34_a36_the_successor_is_built_under_the_policy_of_the_moment() -> anyhow::Result<()> {
    let world = World::start("a29", three(json!({}))).await?;
    let first = world.fail_new("wl").await?;
    ensure!(first.spec.gate_profile.is_none(), "absent by default");
    let second = world.next(&first).await?;
    ensure!(second.spec.gate_profile.is_none() && second.spec.coder_agent_ref == first.spec.coder_agent_ref);
    let overrides = json!({
        "workload": {
            "coderAgentRef": {"name": "strong"}, "gateProfile": {"language": "rust"}, "verdictPolicy": {"selfGO": ["docs"]},
        },
        "labels": {"lane": "frontier"},
    });
    world.set(three(json!({"overrides": overrides}))).await?;
    world.end("wl", stuck()).await?;
    let third = world.next(&second).await?;
    assert_eq!(
        third.spec.coder_agent_ref.as_ref().map(|agent| agent.name.as_str()),
        Some("strong")
    );
    assert_eq!(third.spec.gate_profile, Some(json!({"language": "rust"})));
    assert_eq!(third.spec.verdict_policy, Some(json!({"selfGO": ["docs"]})));
    assert_eq!(third.labels().get("lane").map(String::as_str), Some("frontier"));
    let child = world.child_of(&third, "code-7").await?;
    assert_eq!(child.spec.agent_ref.map(|agent| agent.name).as_deref(), Some("strong"));
    assert_eq!(child.spec.gate_profile, Some(json!({"language": "rust"})));
    Ok(())
}

/// Workloads pass no admission of ours: what a Task gets there, a Workload's successor gets with the create.
#[tokio::test]
async fn a35_labels_and_queue_are_those_of_the_day() -> anyhow::Result<()> {
    let world = World::start("a35", three(json!({}))).await?;
    let first = world.fail_new("wl").await?;
    let second = world.next(&first).await?;
    ensure!(second.labels().is_empty(), "{:?}", second.labels());
    let spec = json!({
        "retry": quick(three(json!({"overrides": {"labels": {"lane": "frontier"}}}))),
        "queueName": "agents",
        "metadata": {"labels": {"lane": "local", "team": "{{ namespace.name }}"}, "annotations": {"from": "{{ task.metadata.name }}"}},
    });
    world.policy(spec).await?;
    world.in_force().await?;
    world.end("wl", stuck()).await?;
    let third = world.next(&second).await?;
    let label = |key: &str| third.labels().get(key).map(String::as_str);
    assert_eq!(label("lane"), Some("frontier"), "overrides come first");
    assert_eq!(label("team"), Some(world.ns.name()));
    assert_eq!(label("kueue.x-k8s.io/queue-name"), Some("agents"));
    assert_eq!(third.annotations().get("from").map(String::as_str), Some("wl"));
    assert_eq!(number(&third), Some("3"));
    Ok(())
}

#[tokio::test]
async fn a06_a07_who_it_is_stands_on_every_run() -> anyhow::Result<()> {
    let world = World::start("a06", three(json!({}))).await?;
    let mut object = annotated(
        "stated",
        &json!({"foreman.llmkube.dev/issue-id": "i-77", "foreman.llmkube.dev/agent-name": "foreman/coder"}),
    );
    object["metadata"]["labels"] = json!({"lane": "local"});
    world.make(&object).await?;
    let first = world.end("stated", stuck()).await?;
    let second = world.next(&first).await?;
    let stamp = |key: &str| second.annotations().get(&format!("foreman.llmkube.dev/{key}")).cloned();
    assert_eq!(stamp("issue-id").as_deref(), Some("i-77"));
    assert_eq!(stamp("agent-name").as_deref(), Some("foreman/coder"));
    assert_eq!(second.labels().get("lane").map(String::as_str), Some("local"));
    assert_eq!(
        (&second.spec.repo, &second.spec.issues, &second.spec.intent),
        (&first.spec.repo, &first.spec.issues, &first.spec.intent)
    );

    world.set(three(json!({"annotationPrefix": "acme.dev/"}))).await?;
    let first = world.fail_new("bare").await?;
    let second = world.next(&first).await?;
    let stamp = |key: &str| second.annotations().get(&format!("acme.dev/{key}")).cloned();
    assert_eq!(stamp("attempt").as_deref(), Some("2"));
    assert_eq!(stamp("issue-id").as_deref(), Some("7"));
    assert_eq!(stamp("agent-name").as_deref(), Some("coder"));
    Ok(())
}

#[tokio::test]
async fn a46_a47_the_issue_survives_the_second_and_the_third_run() -> anyhow::Result<()> {
    let world = World::start("a46", three(json!({}))).await?;
    let mut object = workload("wl-acme-app-42");
    object["spec"]["issues"] = json!([42]);
    world.make(&object).await?;
    let mut before = await_object(&world.workloads(), "wl-acme-app-42", "is there", |_| true).await?;
    for _ in 0..2 {
        world.finish("wl-acme-app-42-code-42", stuck()).await?;
        let next = world.next(&before).await?;
        assert_eq!(next.spec.issues, [42]);
        let id = next.annotations().get("foreman.llmkube.dev/issue-id").cloned();
        assert_eq!(id.as_deref(), Some("42"));
        before = next;
    }
    let child = world.child_of(&before, "code-42").await?;
    assert_eq!(child.spec.payload["branch"], "foreman/wl-acme-app-42/issue-42");
    Ok(())
}
