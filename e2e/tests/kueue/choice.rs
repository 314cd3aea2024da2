//! Which queue a Job is given to, and what becomes of one for which there is none.

use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use kelos_standin::{CrdCapability, Outcome, crds, types::Task};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Gate, await_object};

use crate::world::{
    Kelos, MUTATE_JOBS, QUEUE, World, cluster_queue, govern, govern_beside, kueue, local_queue, queued, task,
    until_governed,
};

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

/// A Kelos that has adopted proposal 002: its Tasks have a field for the queue.
#[tokio::test]
async fn the_field_of_the_task_decides_before_the_policy() -> anyhow::Result<()> {
    let cp = ControlPlane::builder()
        .crds(crds::yaml(CrdCapability::Cancellation)?)
        .start()
        .await?;
    let _kueue = kueue().start(&cp).await?;
    let _gate = Gate::builder().serve_flag("--no-leader-election").start(&cp).await?;
    let ns = cp.namespace("field").await?;
    let kelos = Kelos::start(&cp, ns.name()).await?;
    govern(&cp, ns.name(), json!({"queueName": "by-policy"})).await?;
    cp.apply_yaml(&cluster_queue(ns.name(), 9)).await?;
    for queue in ["by-label", "by-field", "by-policy"] {
        local_queue(&cp, ns.name(), queue, ns.name(), json!({})).await?;
    }
    for (name, metadata, field, expected) in [
        (
            "label",
            json!({"labels": {(QUEUE): "by-label"}}),
            "by-field",
            "by-label",
        ),
        ("field", json!({}), "by-field", "by-field"),
        ("policy", json!({}), "", "by-policy"),
    ] {
        let mut made = named(name, &metadata);
        if !field.is_empty() {
            made["spec"]["queueName"] = field.into();
        }
        ns.apply_yaml(&made.to_string()).await?;
        queued(&ns.api(), name, "Admitted").await?;
        let job = ns.api::<Job>().get(name).await?;
        ensure!(job.labels()[QUEUE] == expected, "{name}: {:?}", job.labels());
        kelos.agents.finish(ns.name(), name, Outcome::succeeded()).await?;
        await_object(&ns.api::<Task>(), name, "succeeds", |task| task.phase() == "Succeeded").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_template_may_be_in_the_language_of_the_policys_metadata() -> anyhow::Result<()> {
    let world = World::labelled("language", &[], json!({"queueName": "agents"})).await?;
    let policy = |name: &str| {
        json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"},
            "spec": {"queueName": name, "metadata": {"engine": "GoTemplate", "annotations": {"go": "yes"}}},
        })
        .to_string()
    };
    let refused = world.ns.apply_yaml(&policy("{{.task.spec.type | nope}}")).await;
    let refused = format!("{:?}", refused.err());
    ensure!(refused.contains("spec.queueName: line 1, column"), "{refused}");
    world
        .ns
        .apply_yaml(&policy("{{printf \"%s-%s\" .task.spec.type .namespace.name}}"))
        .await?;
    until_governed(world.cp, world.ns.name(), "go").await?;
    world.task("a").await?;
    let job = world
        .job("a", "has a queue", |job| job.labels().contains_key(QUEUE))
        .await?;
    let expected = format!("claude-code-{}", world.ns);
    ensure!(job.labels()[QUEUE] == expected, "{:?}", job.labels());
    Ok(())
}

/// Kueue cannot take a Job whose pods run, and what a person took out of a queue stays out.
#[tokio::test]
async fn a_job_that_is_there_already_is_never_put_into_a_queue() -> anyhow::Result<()> {
    let world = World::governed("update", json!({})).await?;
    world.queue(1).await?;
    for (name, suspend) in [("runs", false), ("waits", true)] {
        let mut job = world.by_hand(name).await?;
        job["spec"]["suspend"] = suspend.into();
        world.ns.apply_yaml(&job.to_string()).await?;
    }
    govern(world.cp, world.ns.name(), json!({"queueName": "agents"})).await?;
    govern_beside(world.cp, world.ns.name()).await?;
    world.ns.apply_yaml(&world.by_hand("new").await?.to_string()).await?;
    let is_queued = |job: &Job| job.labels().get(QUEUE).is_some_and(|queue| queue == "agents");
    world.job("new", "is in the queue", is_queued).await?;

    let mark = world.cp.audit().mark()?;
    for (name, suspend) in [("runs", false), ("waits", true)] {
        let change = r#"{"metadata":{"labels":{"a":"b"},"annotations":{"a":"b"}},"spec":{"backoffLimit":3}}"#;
        let patch = ["patch", "job", name, "--type=merge", "-p", change];
        world.ns.kubectl(patch).await?.stdout_ok()?;
        let job = world.ns.api::<Job>().get(name).await?;
        let suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
        ensure!(job.labels()["a"] == "b" && suspended == suspend, "{job:?}");
        ensure!(!job.labels().contains_key(QUEUE), "{job:?}");
    }
    let events = world.cp.audit().since(mark).await?;
    let mut updates = events.iter().filter(|event| {
        let object = &event.object_ref;
        object.resource == "jobs" && object.namespace == world.ns.name() && event.verb != "create" && event.is_write()
    });
    ensure!(updates.clone().count() >= 2, "no updates were seen");
    let ours = updates.find(|event| event.was_sent_to(MUTATE_JOBS));
    ensure!(ours.is_none(), "an update was sent to us: {ours:?}");
    Ok(())
}
