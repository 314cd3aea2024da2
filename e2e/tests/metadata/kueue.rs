//! A Job that waits in a queue of the real Kueue while its Task's labels come: its pods have them when Kueue starts it.

use anyhow::ensure;
use kelos_standin::CRDS;
use serde_json::json;
use taskgate_e2e::{ControlPlane, Gate, Kueue, PATIENCE, Shared, eventually};
use tokio::sync::OnceCell;

use crate::{
    tracker::{PENDING, Tracker, titled},
    world::{World, annotations, gate, labels, task},
};

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));
static KUEUE: OnceCell<Kueue> = OnceCell::const_new();
static GATE: OnceCell<Gate> = OnceCell::const_new();

fn queues(cpu: u32, namespace: &str) -> String {
    let objects = [
        json!({"kind": "ResourceFlavor", "metadata": {"name": "any"}}),
        json!({"kind": "ClusterQueue", "metadata": {"name": "agents"}, "spec": {"namespaceSelector": {}, "resourceGroups": [
            {"coveredResources": ["cpu"], "flavors": [{"name": "any", "resources": [{"name": "cpu", "nominalQuota": cpu}]}]},
        ]}}),
        json!({"kind": "LocalQueue", "metadata": {"name": "agents", "namespace": namespace}, "spec": {"clusterQueue": "agents"}}),
    ];
    let objects = objects.map(|mut object| {
        object["apiVersion"] = json!("kueue.x-k8s.io/v1beta2");
        object.to_string()
    });
    objects.join("\n---\n")
}

#[tokio::test]
async fn labels_that_come_while_a_job_waits_in_kueue_are_on_its_pods() -> anyhow::Result<()> {
    let cp = PLANE.get().await?;
    KUEUE.get_or_try_init(|| Kueue::start(cp)).await?;
    let gate = GATE.get_or_try_init(|| gate(cp)).await?;
    let world = World::on(cp, gate, "kueue").await?;
    let spec = json!({"queueName": "agents", "metadata": titled(&json!(["Job", "Pod"]))});
    let tracker = Tracker::of(world, spec).await?;
    let world = &tracker.world;
    cp.apply_yaml(&queues(0, world.ns.name())).await?;
    tracker.fails().await?;
    let (stored, _) = world.create(&task("fixer-42")).await?;
    let mut job = World::job_of(&stored);
    job["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    world.create(&job).await?;
    eventually("Kueue has the Job in its queue", PATIENCE, || async {
        let workloads = ["get", "workloads.kueue.x-k8s.io", "-oname"];
        let workloads = world.ns.kubectl(workloads).await?.stdout_ok()?;
        ensure!(workloads.contains("job-fixer-42"), "{workloads}");
        Ok(())
    })
    .await?;
    tracker.heals().await?;
    let task = tracker.settled().await?;
    let title = &labels(&task)["title"];
    ensure!(!title.is_null() && annotations(&task)[PENDING].is_null(), "{task}");
    let job = tracker.get("job").await?;
    ensure!(labels(&job["spec"]["template"])["title"] == *title, "{job}");
    cp.apply_yaml(&queues(1, world.ns.name())).await?;
    eventually(
        "Kueue starts the Job, and its pod has the label",
        2 * PATIENCE,
        || async {
            let pods = ["get", "pods", "-ljob-name=fixer-42", "-ojson"];
            let pods: serde_json::Value = serde_json::from_str(&world.ns.kubectl(pods).await?.stdout_ok()?)?;
            ensure!(labels(&pods["items"][0])["title"] == *title, "{pods}");
            Ok(())
        },
    )
    .await?;
    let job = tracker.get("job").await?;
    ensure!(
        job["spec"]["suspend"] == false && labels(&job)["title"] == *title,
        "{job}"
    );
    Ok(())
}
