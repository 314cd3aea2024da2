//! Where Kueue says nothing, or nothing that anybody sees, the Task says it.

use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use taskgate_e2e::{PATIENCE, eventually};

use crate::world::{CLASS, QUEUE, UNMANAGED, World, task, workloads};

fn says(condition: &Value, part: &str) -> bool {
    condition["message"]
        .as_str()
        .is_some_and(|message| message.contains(part))
}

#[tokio::test]
async fn a_queue_that_is_missing_comes_goes_and_is_held() -> anyhow::Result<()> {
    let world = World::governed("missing", json!({"queueName": "agents"})).await?;
    world.cluster_queue(1).await?;
    world.task("first").await?;
    let told = world.queued("first", "NoSuchLocalQueue").await?;
    ensure!(
        told["status"] == "True" && says(&told, "there is no LocalQueue agents"),
        "{told}"
    );
    world.local_queue("agents", json!({})).await?;
    world.runs("first").await?;
    world.queued("first", "Admitted").await?;

    world.task("second").await?;
    world.queued("second", "WaitingForAdmission").await?;
    world.delete_queue("agents").await?;
    world.queued("second", "NoSuchLocalQueue").await?;
    world.local_queue("agents", json!({"stopPolicy": "Hold"})).await?;
    let told = world.queued("second", "LocalQueueHeld").await?;
    ensure!(says(&told, "stopPolicy"), "{told}");
    world.succeed("first").await?;
    world.local_queue("agents", json!({"stopPolicy": "None"})).await?;
    world.runs("second").await?;
    world.queued("second", "Admitted").await.map(drop)
}

#[tokio::test]
async fn a_queue_without_a_cluster_queue_is_inactive() -> anyhow::Result<()> {
    let world = World::governed("inactive", json!({"queueName": "agents"})).await?;
    let queue = json!({
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": "agents"},
        "spec": {"clusterQueue": world.ns.name()},
    });
    world.ns.apply_yaml(&queue.to_string()).await?;
    world.task("a").await?;
    let told = world.queued("a", "LocalQueueInactive").await?;
    ensure!(
        told["status"] == "True" && says(&told, "LocalQueue agents is inactive: "),
        "{told}"
    );
    world.cluster_queue(1).await?;
    world.runs("a").await.map(drop)
}

#[tokio::test]
async fn a_priority_class_that_does_not_exist_is_told_where_kueue_is_silent() -> anyhow::Result<()> {
    let spec = json!({"queueName": "agents", "queuePriorityClass": "nobody-made-me"});
    let world = World::governed("class", spec).await?;
    world.queue(1).await?;
    world.task("a").await?;
    let told = world.queued("a", "UnknownPriorityClass").await?;
    ensure!(told["status"] == "True" && says(&told, "nobody-made-me"), "{told}");
    let job = world
        .job("a", "is labelled", |job| job.metadata.labels.is_some())
        .await?;
    ensure!(
        job.metadata
            .labels
            .is_some_and(|labels| labels[CLASS] == "nobody-made-me")
    );
    let class =
        "{apiVersion: kueue.x-k8s.io/v1beta2, kind: WorkloadPriorityClass, metadata: {name: nobody-made-me}, value: 7}";
    world.cp.apply_yaml(class).await?;
    world.runs("a").await?;
    world.queued("a", "Admitted").await.map(drop)
}

#[tokio::test]
async fn where_kueue_does_not_manage_the_namespace_a_job_is_left_alone_and_runs() -> anyhow::Result<()> {
    let world = World::labelled("unmanaged", &[(UNMANAGED, "yes")], json!({"queueName": "agents"})).await?;
    world.queue(1).await?;
    world.task("a").await?;
    world.runs("a").await?;
    let told = world.queued("a", "NamespaceNotManaged").await?;
    ensure!(
        told["status"] == "False" && says(&told, "managedJobsNamespaceSelector"),
        "{told}"
    );
    let job = world.job("a", "is there", |_| true).await?;
    ensure!(
        !job.metadata.labels.is_some_and(|labels| labels.contains_key(QUEUE)),
        "a label that Kueue never looks at"
    );
    Ok(())
}

/// Somebody labels a Job where Kueue does not look: its webhook suspends it, and nothing ever starts it.
#[tokio::test]
async fn a_job_that_hangs_in_an_unmanaged_namespace_is_told() -> anyhow::Result<()> {
    let world = World::labelled("hangs", &[(UNMANAGED, "yes")], json!({"metadata": {}})).await?;
    world.queue(1).await?;
    let mut job = world.by_hand("a").await?;
    job["metadata"]["labels"][QUEUE] = json!("agents");
    world.ns.apply_yaml(&job.to_string()).await?;
    let told = world.queued("a", "NamespaceNotManaged").await?;
    ensure!(told["status"] == "True" && says(&told, "never start the Job"), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_label_that_is_taken_away_is_told() -> anyhow::Result<()> {
    let world = World::governed("removed", json!({"queueName": "agents"})).await?;
    world.queue(0).await?;
    world.task("a").await?;
    world.queued("a", "WaitingForAdmission").await?;
    let patch = Patch::Merge(json!({"metadata": {"labels": {(QUEUE): null}}}));
    world
        .ns
        .api::<Job>()
        .patch("a", &PatchParams::default(), &patch)
        .await?;
    let told = world.queued("a", "QueueLabelRemoved").await?;
    ensure!(told["status"] == "True" && says(&told, "delete the Job"), "{told}");
    Ok(())
}

#[tokio::test]
async fn workloads_of_others_and_jobs_of_nobody_are_no_trouble() -> anyhow::Result<()> {
    let world = World::governed("others", json!({"queueName": "agents"})).await?;
    world.queue(1).await?;
    let api = workloads(world.cp, world.ns.name());
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
    // A Job whose Task is another one by now, and one that is gone.
    for (name, uid) in [
        ("a", "00000000-0000-0000-0000-000000000000"),
        ("b", "00000000-0000-0000-0000-000000000001"),
    ] {
        let mut job = world.by_hand("a").await?;
        job["metadata"]["name"] = json!(format!("stale-{name}"));
        job["metadata"]["ownerReferences"][0]["uid"] = json!(uid);
        job["metadata"]["ownerReferences"][0]["name"] = json!(name);
        job["metadata"]["labels"][QUEUE] = json!("agents");
        world.ns.apply_yaml(&job.to_string()).await?;
    }
    world.task("mine").await?;
    world.queued("mine", "Admitted").await?;
    world.succeed("mine").await
}

#[tokio::test]
async fn what_is_missing_is_told_as_the_job_is_made() -> anyhow::Result<()> {
    let world = World::governed(
        "warned",
        json!({"queueName": "agents", "queuePriorityClass": "nobody-at-all"}),
    )
    .await?;
    let mut job = world.by_hand("a").await?;
    let warnings = || async {
        let args = ["create", "--dry-run=server", "-oname", "-f-"];
        let output = world.ns.kubectl_with_input(args, &job.to_string()).await?;
        let warnings: Vec<_> = output.warnings().iter().map(ToString::to_string).collect();
        anyhow::Ok(warnings.join("\n"))
    };
    let told = warnings().await?;
    let missing = format!("there is no LocalQueue agents in namespace {}", world.ns);
    ensure!(told.contains(&missing), "{told}");
    ensure!(told.contains("no resource requests in kelos-agent"), "{told}");
    world.queue(1).await?;
    let told = warnings().await?;
    ensure!(
        told.contains("there is no WorkloadPriorityClass nobody-at-all"),
        "{told}"
    );
    job["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
    let class =
        "{apiVersion: kueue.x-k8s.io/v1beta2, kind: WorkloadPriorityClass, metadata: {name: nobody-at-all}, value: 7}";
    world.cp.apply_yaml(class).await?;
    eventually("nothing is left to be told", PATIENCE, || async {
        let args = ["create", "--dry-run=server", "-oname", "-f-"];
        let output = world.ns.kubectl_with_input(args, &job.to_string()).await?;
        ensure!(output.warnings().is_empty(), "{:?}", output.warnings());
        Ok(())
    })
    .await
}

impl World {
    /// The Job that Kelos would make for a Task, which is made here and which Kelos does not get to: it is named for a
    /// Workspace that does not exist.
    pub(crate) async fn by_hand(&self, name: &str) -> anyhow::Result<Value> {
        let mut owner = task(name);
        owner["spec"]["workspaceRef"] = json!({"name": "nowhere"});
        self.ns.apply_yaml(&owner.to_string()).await?;
        let owner = self.tasks().get(name).await?;
        let labels = json!({"kelos.dev/task": name});
        Ok(json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name, "labels": labels, "ownerReferences": [{
                "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "name": name, "uid": owner.metadata.uid,
                "controller": true, "blockOwnerDeletion": true,
            }]},
            "spec": {"backoffLimit": 1, "template": {"metadata": {"labels": labels}, "spec": {
                "restartPolicy": "Never", "containers": [{"name": "kelos-agent", "image": "agent"}],
            }}},
        }))
    }
}
