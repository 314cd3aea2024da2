//! A Job that waits in a queue of the real Kueue while its Task's labels are added: its pods have them when Kueue starts it,
//! and not after Kueue has stopped it.

use anyhow::{bail, ensure};
use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Kueue, PATIENCE, SharedGate, eventually, job_of};
use tokio::sync::OnceCell;

use crate::{
    issue_source::{IssueSource, PENDING, titled},
    support::{annotations, labels, start_on, task},
};

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));
static KUEUE: OnceCell<Kueue> = OnceCell::const_new();

/// A queue with so many CPUs, and a class of Jobs that may take them from others.
fn queues(cpu: u32, namespace: &str) -> String {
    let resources = json!([{"name": "cpu", "nominalQuota": cpu}]);
    let objects = [
        json!({"kind": "ResourceFlavor", "metadata": {"name": "any"}}),
        json!({"kind": "WorkloadPriorityClass", "metadata": {"name": "hotfix"}, "value": 9}),
        json!({"kind": "ClusterQueue", "metadata": {"name": namespace}, "spec": {
            "namespaceSelector": {}, "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [{"coveredResources": ["cpu"], "flavors": [{"name": "any", "resources": resources}]}],
        }}),
        json!({"kind": "LocalQueue", "metadata": {"name": "agents", "namespace": namespace}, "spec": {"clusterQueue": namespace}}),
    ];
    let objects = objects.map(|mut object| {
        object["apiVersion"] = json!("kueue.x-k8s.io/v1beta2");
        object.to_string()
    });
    objects.join("\n---\n")
}

fn with_cpu(mut job: Value) -> Value {
    job["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    job
}

/// A Job that got its title while it waited in Kueue's queue, which then started it; and that title.
async fn started(hint: &str) -> anyhow::Result<(IssueSource, Value)> {
    let cp = SHARED.plane().await?;
    KUEUE.get_or_try_init(|| Kueue::start(cp)).await?;
    let fixture = start_on(&SHARED, hint).await?;
    let spec = json!({"queueName": "agents", "metadata": titled(&json!(["Job", "Pod"]))});
    let source = IssueSource::of(fixture, spec).await?;
    let fixture = &source.fixture;
    cp.apply_yaml(&queues(0, fixture.ns.name())).await?;
    source.fails();
    let stored = fixture.created(&task("fixer-42")).await?;
    fixture.created(&with_cpu(job_of(&stored))).await?;
    fixture.await_kueue_workload("fixer-42").await?;
    source.heals();
    let task = source.settled().await?;
    let title = labels(&task)["title"].clone();
    ensure!(!title.is_null() && annotations(&task)[PENDING].is_null(), "{task}");
    let job = source.get("job").await?;
    ensure!(labels(&job["spec"]["template"])["title"] == title, "{job}");
    cp.apply_yaml(&queues(1, fixture.ns.name())).await?;
    runs(&source, &title).await?;
    let job = source.get("job").await?;
    ensure!(
        job["spec"]["suspend"] == false && labels(&job)["title"] == title,
        "{job}"
    );
    Ok((source, title))
}

/// Waits until Kueue has started the Job, and its pod has this title.
async fn runs(source: &IssueSource, title: &Value) -> anyhow::Result<()> {
    eventually("Kueue starts the Job with its label", 2 * PATIENCE, || async {
        let pods = ["get", "pods", "-ljob-name=fixer-42", "-ojson"];
        let pods: Value = serde_json::from_str(&source.fixture.kubectl(pods).await?.stdout_ok()?)?;
        let [pod] = pods["items"].as_array().map_or(&[][..], Vec::as_slice) else {
            bail!("not one pod: {pods}");
        };
        let going = &pod["metadata"]["deletionTimestamp"];
        ensure!(going.is_null() && labels(pod)["title"] == *title, "{pod}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn labels_that_come_while_a_job_waits_in_kueue_are_on_its_pods() -> anyhow::Result<()> {
    started("kueue").await.map(drop)
}

/// Kueue keeps the pod template as it was when it made the Workload, and puts that back when it stops a Job.
#[tokio::test]
async fn a_job_that_kueue_preempts_goes_on_without_the_labels_that_came_late() -> anyhow::Result<()> {
    let (source, title) = started("preempted").await?;
    let fixture = &source.fixture;
    let hotfix = with_cpu(json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "hotfix", "labels": {
            "kueue.x-k8s.io/queue-name": "agents", "kueue.x-k8s.io/priority-class": "hotfix",
        }},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": "agent"}],
        }}},
    }));
    fixture.created(&hotfix).await?;
    eventually("Kueue stops the Job", 2 * PATIENCE, || async {
        let job = source.get("job").await?;
        let template = labels(&job["spec"]["template"]);
        ensure!(job["spec"]["suspend"] == true && template["title"].is_null(), "{job}");
        ensure!(labels(&job)["title"] == title, "the Job itself keeps it: {job}");
        Ok(())
    })
    .await?;
    fixture.kubectl(["delete", "job", "hotfix"]).await?.stdout_ok()?;
    runs(&source, &Value::Null).await?;
    let task = source.get("tasks.kelos.dev").await?;
    ensure!(
        labels(&task)["title"] == title && annotations(&task)[PENDING].is_null(),
        "{task}"
    );
    Ok(())
}
