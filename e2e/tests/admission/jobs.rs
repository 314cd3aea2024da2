//! What happens to a Task's Job.

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::{PRIORITY_CLASS, QUEUE_NAME, job_of, task};

use crate::support::governed;

#[tokio::test]
async fn the_job_of_a_governed_task_waits_in_its_queue() -> anyhow::Result<()> {
    let fixture = governed("queue", json!({"queueName": "agents", "queuePriorityClass": "high"})).await?;
    let owner = fixture.created(&task("a")).await?;
    let job = fixture.created(&job_of(&owner)).await?;
    ensure!(job["spec"]["suspend"] == true, "{job}");
    ensure!(
        job["metadata"]["labels"][QUEUE_NAME] == "agents" && job["metadata"]["labels"][PRIORITY_CLASS] == "high",
        "{job}"
    );
    let template = &job["spec"]["template"]["metadata"]["labels"];
    ensure!(
        template[QUEUE_NAME].is_null(),
        "Kueue does not start a Job with its keys in the pod template: {template}"
    );
    let labels = fixture
        .kubectl(["get", "tasks.kelos.dev", "a", "-ojsonpath={.metadata.labels}"])
        .await?
        .stdout_ok()?;
    ensure!(labels.is_empty(), "only the Job gets them: {labels}");
    Ok(())
}

#[tokio::test]
async fn a_job_with_a_queue_label_of_its_own_keeps_it() -> anyhow::Result<()> {
    let fixture = governed("labelled", json!({"queueName": "agents"})).await?;
    let owner = fixture.created(&task("a")).await?;
    let mut mine = job_of(&owner);
    mine["metadata"]["labels"][QUEUE_NAME] = json!("mine");
    mine["spec"]["suspend"] = json!(true);
    let output = fixture.create(&mine).await?;
    ensure!(output.warnings().is_empty(), "{:?}", output.warnings());
    output.stdout_ok()?;
    let queue = fixture.kubectl(["get", "job", "a", "-ojson"]).await?.stdout_ok()?;
    ensure!(queue.contains(r#""kueue.x-k8s.io/queue-name": "mine""#), "{queue}");
    Ok(())
}

#[tokio::test]
async fn a_key_of_kueue_in_the_pod_template_warns() -> anyhow::Result<()> {
    let fixture = governed("template", json!({"queueName": "agents"})).await?;
    let owner = fixture.created(&task("a")).await?;
    let mut job = job_of(&owner);
    job["spec"]["template"]["metadata"]["labels"][QUEUE_NAME] = json!("agents");
    let output = fixture.create(&job).await?;
    for told in [
        "taskgate: TaskPolicy/agents: Kueue is not installed: the Job stays suspended until it is",
        "taskgate: TaskPolicy/agents: no resource requests in kelos-agent: Kueue's quota counts the Job as nothing, unless a \
         LimitRange fills them in",
        "taskgate: TaskPolicy/agents: Kueue refuses to start a Job whose pod template has kueue.x-k8s.io/queue-name; remove it \
         from the pod template",
    ] {
        ensure!(output.warnings().contains(&told), "{told}: {:?}", output.warnings());
    }
    output.stdout_ok().map(drop)
}

/// The Task decides, not the Job: it is the Task that a policy selects.
#[tokio::test]
async fn the_tasks_labels_select_the_policy_of_its_job() -> anyhow::Result<()> {
    let spec = json!({"selector": {"taskSelector": {"matchLabels": {"size": "xl"}}}, "queueName": "large"});
    let fixture = governed("selected", spec).await?;
    let small = fixture.created(&task("small")).await?;
    let mut large = task("large");
    large["metadata"]["labels"] = json!({"size": "xl"});
    let large = fixture.created(&large).await?;
    let small = fixture.created(&job_of(&small)).await?;
    ensure!(
        small["spec"]["suspend"] == false && small["metadata"]["labels"][QUEUE_NAME].is_null(),
        "{small}"
    );
    let large = fixture.created(&job_of(&large)).await?;
    ensure!(
        large["spec"]["suspend"] == true && large["metadata"]["labels"][QUEUE_NAME] == "large",
        "{large}"
    );
    Ok(())
}

#[tokio::test]
async fn a_job_whose_owner_was_another_task_of_that_name_is_not_governed() -> anyhow::Result<()> {
    let fixture = governed("stale", json!({"queueName": "agents"})).await?;
    let mut owner = fixture.created(&task("a")).await?;
    owner["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    let job = fixture.created(&job_of(&owner)).await?;
    ensure!(job["spec"]["suspend"] == false, "{job}");
    Ok(())
}
