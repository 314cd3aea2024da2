//! Which queue a Job is given to, and what becomes of one for which there is none.

use anyhow::ensure;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::world::{QUEUE, World, task};

fn named(name: &str, metadata: &Value) -> Value {
    let mut task = task(name);
    for (field, value) in metadata.as_object().into_iter().flatten() {
        task["metadata"][field] = value.clone();
    }
    task
}

#[tokio::test]
async fn the_task_decides_before_the_policy_and_the_label_before_the_annotation() -> anyhow::Result<()> {
    let world = World::governed("order", json!({"queueName": "{{ task.spec.type }}"})).await?;
    for (name, metadata, expected) in [
        (
            "label",
            json!({"labels": {(QUEUE): "by-label"}, "annotations": {(QUEUE): "by-annotation"}}),
            "by-label",
        ),
        (
            "annotation",
            json!({"annotations": {(QUEUE): "by-annotation"}}),
            "by-annotation",
        ),
        ("policy", json!({}), "claude-code"),
    ] {
        world.ns.apply_yaml(&named(name, &metadata).to_string()).await?;
        let job = world.job(name, "is suspended", |job| {
            job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
        });
        let job = job.await?;
        ensure!(job.labels()[QUEUE] == expected, "{name}: {:?}", job.labels());
    }
    Ok(())
}

#[tokio::test]
async fn without_a_legal_name_the_job_waits_and_the_task_says_why() -> anyhow::Result<()> {
    let world = World::governed("illegal", json!({"queueName": "{{ task.metadata.annotations.queue }}"})).await?;
    world.queue(9).await?;
    for (name, metadata, part) in [
        ("spaces", json!({"annotations": {(QUEUE): "two words"}}), "two words"),
        ("upper", json!({"labels": {(QUEUE): "Agents"}}), "Agents"),
        (
            "long",
            json!({"annotations": {(QUEUE): "q".repeat(300)}}),
            "at most 63 characters",
        ),
        ("nothing", json!({"annotations": {"queue": " "}}), "gives nothing"),
        ("undefined", json!({}), "queue name: "),
    ] {
        world.ns.apply_yaml(&named(name, &metadata).to_string()).await?;
        let told = world.queued(name, "QueueNameInvalid").await?;
        let message = told["message"].as_str().unwrap_or_default();
        ensure!(told["status"] == "True" && message.contains(part), "{name}: {told}");
        let job = world.job(name, "is there", |_| true).await?;
        ensure!(
            job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)),
            "{name} runs outside of the quota"
        );
        ensure!(!job.labels().contains_key(QUEUE), "{:?}", job.labels());
    }
    // A person helps: the Job goes to a queue after all.
    world
        .ns
        .kubectl(["label", "job", "upper", &format!("{QUEUE}=agents")])
        .await?
        .stdout_ok()?;
    world.queued("upper", "Admitted").await?;
    world.succeed("upper").await
}

#[tokio::test]
async fn a_policy_may_let_such_a_job_run() -> anyhow::Result<()> {
    let world = World::governed("ignored", json!({"queueName": "agents", "queueOnError": "Ignore"})).await?;
    let odd = named("odd", &json!({"annotations": {(QUEUE): "two words"}}));
    world.ns.apply_yaml(&odd.to_string()).await?;
    world.runs("odd").await?;
    let told = world.queued("odd", "QueueNameInvalid").await?;
    ensure!(told["status"] == "False", "{told}");
    Ok(())
}
