//! From the Task to its Job and pods.

use anyhow::ensure;
use serde_json::{Value, json};
use taskgate_e2e::job_of;

use crate::support::{annotations, apply_policy, governed, labels, start, task};

fn section(targets: &Value) -> Value {
    json!({
        "labels": {"team": "{{ spawner.metadata.labels.team }}", "cost-center": "{{ namespace.labels[\"cost-center\"] }}"},
        "annotations": {"example.com/url": "{{ item.url }}"},
        "propagate": targets,
    })
}

#[tokio::test]
async fn job_and_pod_carry_what_the_task_carries() -> anyhow::Result<()> {
    let fixture = start("propagate").await?;
    let spec = json!({"queueName": "agents", "metadata": section(&json!(["Job", "Pod"]))});
    apply_policy(&fixture, "agents", spec).await?;
    let owner = fixture.created(&task("fixer-42")).await?;
    let mut made = job_of(&owner);
    made["spec"]["template"]["metadata"]["labels"]["team"] = json!("mine");
    let job = fixture.created(&made).await?;
    let url = "https://github.com/acme/shop/issues/42";
    ensure!(
        labels(&job)["team"] == "blue" && labels(&job)["cost-center"] == "4711",
        "{job}"
    );
    ensure!(annotations(&job)["example.com/url"] == url, "{job}");
    // In the same patch as the queue.
    ensure!(
        labels(&job)["kueue.x-k8s.io/queue-name"] == "agents" && job["spec"]["suspend"] == true,
        "{job}"
    );
    let pod = &job["spec"]["template"];
    ensure!(labels(pod)["team"] == "mine", "what is there already stays: {pod}");
    ensure!(
        labels(pod)["cost-center"] == "4711" && annotations(pod)["example.com/url"] == url,
        "{pod}"
    );
    ensure!(!pod.to_string().contains("kueue.x-k8s.io"), "{pod}");
    let selector = &job["spec"]["selector"]["matchLabels"];
    ensure!(
        selector["team"].is_null() && selector["cost-center"].is_null(),
        "{selector}"
    );
    ensure!(
        labels(pod)["kelos.dev/task"] == "fixer-42" && labels(&job)["kelos.dev/name"] == "kelos",
        "{job}"
    );
    Ok(())
}

#[tokio::test]
async fn a_pod_template_without_labels_gets_them_and_a_job_alone_can_be_meant() -> anyhow::Result<()> {
    let fixture = governed("bare", section(&json!(["Pod"]))).await?;
    let owner = fixture.created(&task("fixer-42")).await?;
    let mut bare = job_of(&owner);
    bare["spec"]["template"]
        .as_object_mut()
        .expect("a template")
        .remove("metadata");
    let job = fixture.dry_run(&bare).await?;
    ensure!(
        labels(&job["spec"]["template"])["team"] == "blue" && labels(&job)["team"].is_null(),
        "{job}"
    );
    apply_policy(&fixture, "agents", json!({"metadata": section(&json!(["Job"]))})).await?;
    let job = fixture.dry_run(&bare).await?;
    ensure!(
        labels(&job)["team"] == "blue" && labels(&job["spec"]["template"])["team"].is_null(),
        "{job}"
    );
    apply_policy(&fixture, "agents", json!({"metadata": section(&json!([]))})).await?;
    let job = fixture.dry_run(&bare).await?;
    ensure!(
        labels(&job)["team"].is_null() && labels(&job["spec"]["template"])["team"].is_null(),
        "{job}"
    );
    Ok(())
}
