//! What happens to a Task's Job.

use anyhow::ensure;
use serde_json::json;

use crate::world::{World, task};

const QUEUE: &str = "kueue.x-k8s.io/queue-name";
const CLASS: &str = "kueue.x-k8s.io/priority-class";

#[tokio::test]
async fn the_job_of_a_governed_task_waits_in_its_queue() -> anyhow::Result<()> {
    let world = World::governed("queue", json!({"queueName": "agents", "queuePriorityClass": "high"})).await?;
    let owner = world.created(&task("a")).await?;
    let job = world.created(&World::job_of(&owner)).await?;
    ensure!(job["spec"]["suspend"] == true, "{job}");
    ensure!(
        job["metadata"]["labels"][QUEUE] == "agents" && job["metadata"]["labels"][CLASS] == "high",
        "{job}"
    );
    let template = &job["spec"]["template"]["metadata"]["labels"];
    ensure!(
        template[QUEUE].is_null(),
        "Kueue does not start a Job with its keys in the pod template: {template}"
    );
    let touched = world
        .ns
        .kubectl(["get", "tasks.kelos.dev", "a", "-ojsonpath={.metadata.labels}"])
        .await?
        .stdout_ok()?;
    ensure!(touched.is_empty(), "the Task has no use for it: {touched}");
    Ok(())
}

#[tokio::test]
async fn a_job_that_somebody_labelled_is_left_alone() -> anyhow::Result<()> {
    let world = World::governed("labelled", json!({"queueName": "agents"})).await?;
    let owner = world.created(&task("a")).await?;
    let mut mine = World::job_of(&owner);
    mine["metadata"]["labels"][QUEUE] = json!("mine");
    mine["spec"]["suspend"] = json!(true);
    let output = world.create(&mine).await?;
    ensure!(output.warnings().is_empty(), "{:?}", output.warnings());
    output.stdout_ok()?;
    let queue = world.ns.kubectl(["get", "job", "a", "-ojson"]).await?.stdout_ok()?;
    ensure!(queue.contains(r#""kueue.x-k8s.io/queue-name": "mine""#), "{queue}");
    Ok(())
}

#[tokio::test]
async fn a_key_of_kueue_in_the_pod_template_is_told() -> anyhow::Result<()> {
    let world = World::governed("template", json!({"queueName": "agents"})).await?;
    let owner = world.created(&task("a")).await?;
    let mut job = World::job_of(&owner);
    job["spec"]["template"]["metadata"]["labels"][QUEUE] = json!("agents");
    let output = world.create(&job).await?;
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
async fn the_tasks_labels_decide_about_its_job() -> anyhow::Result<()> {
    let spec = json!({"selector": {"taskSelector": {"matchLabels": {"size": "xl"}}}, "queueName": "large"});
    let world = World::governed("selected", spec).await?;
    let small = world.created(&task("small")).await?;
    let mut large = task("large");
    large["metadata"]["labels"] = json!({"size": "xl"});
    let large = world.created(&large).await?;
    let small = world.created(&World::job_of(&small)).await?;
    ensure!(
        small["spec"]["suspend"] == false && small["metadata"]["labels"][QUEUE].is_null(),
        "{small}"
    );
    let large = world.created(&World::job_of(&large)).await?;
    ensure!(
        large["spec"]["suspend"] == true && large["metadata"]["labels"][QUEUE] == "large",
        "{large}"
    );
    Ok(())
}

#[tokio::test]
async fn a_job_whose_owner_was_another_task_of_that_name_is_not_governed() -> anyhow::Result<()> {
    let world = World::governed("stale", json!({"queueName": "agents"})).await?;
    let mut owner = world.created(&task("a")).await?;
    owner["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    let job = world.created(&World::job_of(&owner)).await?;
    ensure!(job["spec"]["suspend"] == false, "{job}");
    Ok(())
}
