//! Which queue a Job gets, and what happens to one without a valid queue name.

use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use kelos_standin::{CrdCapability, crds};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Gate, KelosNamespace, QUEUE_NAME};

use crate::support::{MUTATE_JOBS, apply_task, await_policies, governed, job_for_new_task, kueue, labelled, task};

fn named(name: &str, metadata: &Value) -> Value {
    let mut task = task(name);
    for (field, value) in metadata.as_object().into_iter().flatten() {
        task["metadata"][field] = value.clone();
    }
    task
}

#[tokio::test]
async fn the_task_decides_before_the_policy_and_the_label_before_the_annotation() -> anyhow::Result<()> {
    let fixture = governed("order", json!({"queueName": "{{ task.spec.type }}"})).await?;
    for (name, metadata, expected) in [
        (
            "label",
            json!({"labels": {(QUEUE_NAME): "by-label"}, "annotations": {(QUEUE_NAME): "by-annotation"}}),
            "by-label",
        ),
        (
            "annotation",
            json!({"annotations": {(QUEUE_NAME): "by-annotation"}}),
            "by-annotation",
        ),
        ("policy", json!({}), "claude-code"),
    ] {
        fixture.apply_yaml(&named(name, &metadata).to_string()).await?;
        let job = fixture.await_job(name, "is suspended", |job| {
            job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
        });
        let job = job.await?;
        ensure!(job.labels()[QUEUE_NAME] == expected, "{name}: {:?}", job.labels());
    }
    Ok(())
}

#[tokio::test]
async fn without_a_valid_name_the_job_waits_and_the_condition_has_the_reason() -> anyhow::Result<()> {
    let fixture = governed("illegal", json!({"queueName": "{{ task.metadata.annotations.queue }}"})).await?;
    fixture.queue(9).await?;
    for (name, metadata, part) in [
        (
            "spaces",
            json!({"annotations": {(QUEUE_NAME): "two words"}}),
            "two words",
        ),
        ("upper", json!({"labels": {(QUEUE_NAME): "Agents"}}), "Agents"),
        (
            "long",
            json!({"annotations": {(QUEUE_NAME): "q".repeat(300)}}),
            "at most 63 characters",
        ),
        ("nothing", json!({"annotations": {"queue": " "}}), "gives nothing"),
        ("undefined", json!({}), "queue name: "),
    ] {
        fixture.apply_yaml(&named(name, &metadata).to_string()).await?;
        let told = fixture.await_queued(name, "QueueNameInvalid").await?;
        let message = told["message"].as_str().unwrap_or_default();
        ensure!(told["status"] == "True" && message.contains(part), "{name}: {told}");
        let job = fixture.await_job(name, "is there", |_| true).await?;
        ensure!(
            job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)),
            "{name} runs outside of the quota"
        );
        ensure!(!job.labels().contains_key(QUEUE_NAME), "{:?}", job.labels());
    }
    // A user labels the Job: it goes to a queue after all.
    fixture
        .kubectl(["label", "job", "upper", &format!("{QUEUE_NAME}=agents")])
        .await?
        .stdout_ok()?;
    fixture.await_queued("upper", "Admitted").await?;
    fixture.succeed("upper").await
}

#[tokio::test]
async fn a_policy_may_let_such_a_job_run() -> anyhow::Result<()> {
    let fixture = governed("ignored", json!({"queueName": "agents", "queueOnError": "Ignore"})).await?;
    let odd = named("odd", &json!({"annotations": {(QUEUE_NAME): "two words"}}));
    fixture.apply_yaml(&odd.to_string()).await?;
    fixture.await_task_phase("odd", "Running").await?;
    let told = fixture.await_queued("odd", "QueueNameInvalid").await?;
    ensure!(told["status"] == "False", "{told}");
    Ok(())
}

/// A Kelos that has adopted the proposal on queues: its Tasks have a field for the queue.
#[tokio::test]
async fn the_field_of_the_task_decides_before_the_policy() -> anyhow::Result<()> {
    let cp = ControlPlane::builder()
        .crds(crds::yaml(CrdCapability::Cancellation)?)
        .start()
        .await?;
    let _kueue = kueue().start(&cp).await?;
    let _gate = Gate::builder().without_leader_election().start(&cp).await?;
    let ns = KelosNamespace::start(cp.namespace("field").await?).await?;
    ns.policy(json!({"queueName": "by-policy"})).await?;
    ns.apply_cluster_queue(9).await?;
    for queue in ["by-label", "by-field", "by-policy"] {
        ns.local_queue(queue, json!({})).await?;
    }
    for (name, metadata, field, expected) in [
        (
            "label",
            json!({"labels": {(QUEUE_NAME): "by-label"}}),
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
        ns.await_queued(name, "Admitted").await?;
        let job = ns.jobs().get(name).await?;
        ensure!(job.labels()[QUEUE_NAME] == expected, "{name}: {:?}", job.labels());
        ns.succeed(name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_template_may_be_in_the_language_of_the_policys_metadata() -> anyhow::Result<()> {
    let fixture = labelled("language", &[], json!({"queueName": "agents"})).await?;
    let policy = |name: &str| {
        json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"},
            "spec": {"queueName": name, "metadata": {"engine": "GoTemplate", "annotations": {"go": "yes"}}},
        })
        .to_string()
    };
    let refused = fixture.apply_yaml(&policy("{{.task.spec.type | nope}}")).await;
    let refused = format!("{:?}", refused.err());
    ensure!(refused.contains("spec.queueName: line 1, column"), "{refused}");
    fixture
        .apply_yaml(&policy("{{printf \"%s-%s\" .task.spec.type .namespace.name}}"))
        .await?;
    fixture
        .await_admission("admission has the policy", &task("probe"), |seen| {
            !seen["metadata"]["annotations"]["go"].is_null()
        })
        .await?;
    apply_task(&fixture, "a").await?;
    let job = fixture
        .await_job("a", "has a queue", |job| job.labels().contains_key(QUEUE_NAME))
        .await?;
    let expected = format!("claude-code-{}", fixture.ns);
    ensure!(job.labels()[QUEUE_NAME] == expected, "{:?}", job.labels());
    Ok(())
}

/// Kueue cannot take a Job whose pods run, and a Job that a user took out of a queue stays out.
#[tokio::test]
async fn an_existing_job_is_never_put_into_a_queue() -> anyhow::Result<()> {
    let fixture = governed("update", json!({})).await?;
    fixture.queue(1).await?;
    for (name, suspend) in [("runs", false), ("waits", true)] {
        let mut job = job_for_new_task(&fixture, name).await?;
        job["spec"]["suspend"] = suspend.into();
        fixture.apply_yaml(&job.to_string()).await?;
    }
    fixture.policy(json!({"queueName": "agents"})).await?;
    await_policies(&fixture).await?;
    fixture
        .apply_yaml(&job_for_new_task(&fixture, "new").await?.to_string())
        .await?;
    let is_queued = |job: &Job| job.labels().get(QUEUE_NAME).is_some_and(|queue| queue == "agents");
    fixture.await_job("new", "is in the queue", is_queued).await?;

    let mark = fixture.cp.audit().mark()?;
    for (name, suspend) in [("runs", false), ("waits", true)] {
        let change = r#"{"metadata":{"labels":{"a":"b"},"annotations":{"a":"b"}},"spec":{"backoffLimit":3}}"#;
        let patch = ["patch", "job", name, "--type=merge", "-p", change];
        fixture.kubectl(patch).await?.stdout_ok()?;
        let job = fixture.jobs().get(name).await?;
        let suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
        ensure!(job.labels()["a"] == "b" && suspended == suspend, "{job:?}");
        ensure!(!job.labels().contains_key(QUEUE_NAME), "{job:?}");
    }
    let events = fixture.cp.audit().since(mark).await?;
    let mut updates = events.iter().filter(|event| {
        let object = &event.object_ref;
        object.resource == "jobs" && object.namespace == fixture.ns.name() && event.verb != "create" && event.is_write()
    });
    ensure!(updates.clone().count() >= 2, "no updates were seen");
    let ours = updates.find(|event| event.was_sent_to(MUTATE_JOBS));
    ensure!(ours.is_none(), "an update was sent to us: {ours:?}");
    Ok(())
}
