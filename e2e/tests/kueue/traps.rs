//! Where Kueue has no message, or none on the Task, the condition Queued has one.

use anyhow::ensure;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use taskgate_e2e::{PATIENCE, PRIORITY_CLASS, QUEUE_NAME, eventually};

use crate::support::{UNMANAGED, apply_task, governed, job_for_new_task, labelled};

fn message_contains(condition: &Value, part: &str) -> bool {
    condition["message"]
        .as_str()
        .is_some_and(|message| message.contains(part))
}

#[tokio::test]
async fn a_queue_that_is_missing_created_deleted_and_stopped() -> anyhow::Result<()> {
    let fixture = governed("missing", json!({"queueName": "agents"})).await?;
    fixture.apply_cluster_queue(1).await?;
    apply_task(&fixture, "first").await?;
    let told = fixture.await_queued("first", "NoSuchLocalQueue").await?;
    ensure!(
        told["status"] == "True" && message_contains(&told, "there is no LocalQueue agents"),
        "{told}"
    );
    fixture.local_queue("agents", json!({})).await?;
    fixture.await_task_phase("first", "Running").await?;
    fixture.await_queued("first", "Admitted").await?;

    apply_task(&fixture, "second").await?;
    fixture.await_queued("second", "WaitingForAdmission").await?;
    fixture
        .kubectl(["delete", "localqueues.kueue.x-k8s.io", "agents"])
        .await?
        .stdout_ok()?;
    fixture.await_queued("second", "NoSuchLocalQueue").await?;
    fixture.local_queue("agents", json!({"stopPolicy": "Hold"})).await?;
    let told = fixture.await_queued("second", "LocalQueueHeld").await?;
    ensure!(message_contains(&told, "stopPolicy"), "{told}");
    fixture.succeed("first").await?;
    fixture.local_queue("agents", json!({"stopPolicy": "None"})).await?;
    fixture.await_task_phase("second", "Running").await?;
    fixture.await_queued("second", "Admitted").await.map(drop)
}

#[tokio::test]
async fn a_queue_without_a_cluster_queue_is_inactive() -> anyhow::Result<()> {
    let fixture = governed("inactive", json!({"queueName": "agents"})).await?;
    let queue = json!({
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": "agents"},
        "spec": {"clusterQueue": fixture.ns.name()},
    });
    fixture.apply_yaml(&queue.to_string()).await?;
    apply_task(&fixture, "a").await?;
    let told = fixture.await_queued("a", "LocalQueueInactive").await?;
    ensure!(
        told["status"] == "True" && message_contains(&told, "LocalQueue agents is inactive: "),
        "{told}"
    );
    fixture.apply_cluster_queue(1).await?;
    fixture.await_task_phase("a", "Running").await.map(drop)
}

#[tokio::test]
async fn a_missing_priority_class_is_reported_although_kueue_does_not() -> anyhow::Result<()> {
    let spec = json!({"queueName": "agents", "queuePriorityClass": "no-such-class"});
    let fixture = governed("class", spec).await?;
    fixture.queue(1).await?;
    apply_task(&fixture, "a").await?;
    let told = fixture.await_queued("a", "UnknownPriorityClass").await?;
    ensure!(
        told["status"] == "True" && message_contains(&told, "no-such-class"),
        "{told}"
    );
    let job = fixture
        .await_job("a", "is labelled", |job| job.metadata.labels.is_some())
        .await?;
    ensure!(
        job.metadata
            .labels
            .is_some_and(|labels| labels[PRIORITY_CLASS] == "no-such-class")
    );
    let class =
        "{apiVersion: kueue.x-k8s.io/v1beta2, kind: WorkloadPriorityClass, metadata: {name: no-such-class}, value: 7}";
    fixture.cp.apply_yaml(class).await?;
    fixture.await_task_phase("a", "Running").await?;
    fixture.await_queued("a", "Admitted").await.map(drop)
}

#[tokio::test]
async fn a_job_in_an_unmanaged_namespace_is_not_changed_and_runs() -> anyhow::Result<()> {
    let fixture = labelled("unmanaged", &[(UNMANAGED, "yes")], json!({"queueName": "agents"})).await?;
    fixture.queue(1).await?;
    apply_task(&fixture, "a").await?;
    fixture.await_task_phase("a", "Running").await?;
    let told = fixture.await_queued("a", "NamespaceNotManaged").await?;
    ensure!(
        told["status"] == "False" && message_contains(&told, "managedJobsNamespaceSelector"),
        "{told}"
    );
    let job = fixture.await_job("a", "is there", |_| true).await?;
    ensure!(
        !job.metadata
            .labels
            .is_some_and(|labels| labels.contains_key(QUEUE_NAME)),
        "a label that Kueue ignores"
    );
    Ok(())
}

/// A user labels a Job in a namespace that Kueue does not manage: its webhook suspends the Job, and nothing ever starts it.
#[tokio::test]
async fn a_job_that_hangs_in_an_unmanaged_namespace_is_reported() -> anyhow::Result<()> {
    let fixture = labelled("hangs", &[(UNMANAGED, "yes")], json!({"metadata": {}})).await?;
    fixture.queue(1).await?;
    let mut job = job_for_new_task(&fixture, "a").await?;
    job["metadata"]["labels"][QUEUE_NAME] = json!("agents");
    fixture.apply_yaml(&job.to_string()).await?;
    let told = fixture.await_queued("a", "NamespaceNotManaged").await?;
    ensure!(
        told["status"] == "True" && message_contains(&told, "never start the Job"),
        "{told}"
    );
    Ok(())
}

#[tokio::test]
async fn a_removed_queue_label_is_reported() -> anyhow::Result<()> {
    let fixture = governed("removed", json!({"queueName": "agents"})).await?;
    fixture.queue(0).await?;
    apply_task(&fixture, "a").await?;
    fixture.await_queued("a", "WaitingForAdmission").await?;
    let patch = Patch::Merge(json!({"metadata": {"labels": {(QUEUE_NAME): null}}}));
    fixture.jobs().patch("a", &PatchParams::default(), &patch).await?;
    let told = fixture.await_queued("a", "QueueLabelRemoved").await?;
    ensure!(
        told["status"] == "True" && message_contains(&told, "delete the Job"),
        "{told}"
    );
    Ok(())
}

#[tokio::test]
async fn foreign_workloads_and_jobs_without_an_owner_are_ignored() -> anyhow::Result<()> {
    let fixture = governed("others", json!({"queueName": "agents"})).await?;
    fixture.queue(1).await?;
    let api = fixture.kueue_workloads();
    let owners = [
        json!([]),
        json!([{"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "ray", "uid": "u", "controller": true}]),
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "gone", "uid": "g", "controller": true}]),
    ];
    for (index, owner) in owners.into_iter().enumerate() {
        let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
        let workload: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload",
            "metadata": {"name": format!("odd-{index}"), "ownerReferences": owner},
            "spec": {"queueName": "elsewhere", "podSets": [{"name": "main", "count": 1, "template": {"spec": pod}}]},
        }))?;
        api.create(&PostParams::default(), &workload).await?;
    }
    // A Job whose Task was replaced, and one whose Task was deleted.
    let sample = job_for_new_task(&fixture, "a").await?;
    for (name, uid) in [
        ("a", "00000000-0000-0000-0000-000000000000"),
        ("b", "00000000-0000-0000-0000-000000000001"),
    ] {
        let mut job = sample.clone();
        job["metadata"]["name"] = json!(format!("stale-{name}"));
        job["metadata"]["ownerReferences"][0]["uid"] = json!(uid);
        job["metadata"]["ownerReferences"][0]["name"] = json!(name);
        job["metadata"]["labels"][QUEUE_NAME] = json!("agents");
        fixture.apply_yaml(&job.to_string()).await?;
    }
    apply_task(&fixture, "mine").await?;
    fixture.await_queued("mine", "Admitted").await?;
    fixture.succeed("mine").await
}

#[tokio::test]
async fn creating_a_job_warns_of_what_is_missing() -> anyhow::Result<()> {
    let fixture = governed(
        "warned",
        json!({"queueName": "agents", "queuePriorityClass": "no-class-at-all"}),
    )
    .await?;
    let mut job = job_for_new_task(&fixture, "a").await?;
    let warnings = || async {
        let args = ["create", "--dry-run=server", "-oname", "-f-"];
        let output = fixture.kubectl_with_input(args, &job.to_string()).await?;
        let warnings: Vec<_> = output.warnings().iter().map(ToString::to_string).collect();
        anyhow::Ok(warnings.join("\n"))
    };
    let told = warnings().await?;
    let missing = format!("there is no LocalQueue agents in namespace {}", fixture.ns);
    ensure!(told.contains(&missing), "{told}");
    ensure!(told.contains("no resource requests in kelos-agent"), "{told}");
    fixture.queue(1).await?;
    let told = warnings().await?;
    ensure!(
        told.contains("there is no WorkloadPriorityClass no-class-at-all"),
        "{told}"
    );
    job["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
    let class = "{apiVersion: kueue.x-k8s.io/v1beta2, kind: WorkloadPriorityClass, metadata: {name: no-class-at-all}, value: 7}";
    fixture.cp.apply_yaml(class).await?;
    eventually("there are no warnings", PATIENCE, || async {
        let args = ["create", "--dry-run=server", "-oname", "-f-"];
        let output = fixture.kubectl_with_input(args, &job.to_string()).await?;
        ensure!(output.warnings().is_empty(), "{:?}", output.warnings());
        Ok(())
    })
    .await
}
