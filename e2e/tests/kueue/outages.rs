//! Kueue absent, late, killed, and its webhook before or after ours.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kelos_standin::{CRDS, Outcome, types::Task};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{
    AuditEvent, ControlPlane, Gate, PATIENCE, await_object, eventually, eventually_that, never, told_command,
};

use crate::world::{Kelos, QUEUE, World, cluster_queue, govern, kueue, local_queue, queued, task};

/// Foreman's kind has the name and the plural of Kueue's: neither is taken for the other.
const FOREMANS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: workloads.foreman.llmkube.dev}
spec:
  group: foreman.llmkube.dev
  scope: Namespaced
  names: {kind: Workload, listKind: WorkloadList, plural: workloads, singular: workload}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

#[tokio::test]
async fn without_kueue_a_job_waits_and_says_so_and_a_later_kueue_is_picked_up() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).crds(FOREMANS).start().await?;
    let gate = Gate::builder().serve_flag("--no-leader-election").start(&cp).await?;
    let ns = cp.namespace("late").await?;
    let foremans = "{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Workload, metadata: {name: a}}";
    ns.apply_yaml(foremans).await?;
    let kelos = Kelos::start(&cp, ns.name()).await?;
    govern(&cp, ns.name(), json!({"queueName": "agents"})).await?;
    ns.apply_yaml(&task("a").to_string()).await?;
    let tasks: Api<Task> = ns.api();
    let told = queued(&tasks, "a", "KueueNotInstalled").await?;
    ensure!(told["status"] == "True", "{told}");
    eventually("there is an Event", PATIENCE, || async {
        let events = ns.kubectl(["get", "events", "-oname", "--field-selector=reason=KueueNotInstalled"]);
        ensure!(events.await?.stdout_ok()?.lines().count() == 1);
        Ok(())
    })
    .await?;
    silence(&cp).await?;

    let pid = gate.process().pid();
    let _kueue = kueue().start(&cp).await?;
    queued(&tasks, "a", "NoSuchLocalQueue").await?;
    let metrics = gate.metrics().await?;
    for trap in ["KueueNotInstalled", "NoSuchLocalQueue"] {
        let counted = metrics.value("taskgate_queue_states_total", &[("reason", trap)]);
        ensure!(counted == Some(1.0), "{trap}: {counted:?}");
    }
    cp.apply_yaml(&cluster_queue(ns.name(), 1)).await?;
    local_queue(&cp, ns.name(), "agents", ns.name(), json!({})).await?;
    queued(&tasks, "a", "Admitted").await?;
    kelos.agents.finish(ns.name(), "a", Outcome::succeeded()).await?;
    await_object(&tasks, "a", "succeeds", |task| task.phase() == "Succeeded").await?;
    ensure!(
        gate.process().is_running() && gate.process().pid() == pid,
        "taskgate was restarted"
    );
    silence(&cp).await
}

#[tokio::test]
async fn kueue_may_be_killed_and_come_back() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let kueue = kueue().start(&cp).await?;
    let _gate = Gate::start(&cp).await?;
    let ns = cp.namespace("killed").await?;
    let kelos = Kelos::start(&cp, ns.name()).await?;
    govern(&cp, ns.name(), json!({"queueName": "agents"})).await?;
    cp.apply_yaml(&cluster_queue(ns.name(), 1)).await?;
    local_queue(&cp, ns.name(), "agents", ns.name(), json!({})).await?;
    let tasks: Api<Task> = ns.api();
    for (name, told) in [("runs", "Admitted"), ("waits", "WaitingForAdmission")] {
        ns.apply_yaml(&task(name).to_string()).await?;
        queued(&tasks, name, told).await?;
    }
    kueue.process().kill().await?;
    // Kueue's own webhook refuses the Job; Kelos tries again.
    ns.apply_yaml(&task("late").to_string()).await?;
    let story = cp.explain(ns.name(), "late").await?;
    told_command(
        &story,
        "the blocker is Kueue: the API server cannot call its webhook mjob.kb.io, ",
    )?;
    kelos.agents.finish(ns.name(), "runs", Outcome::succeeded()).await?;
    await_object(&tasks, "runs", "succeeds", |task| task.phase() == "Succeeded").await?;
    never("anything starts without Kueue", Duration::from_secs(3), || async {
        Ok(["waits", "late"]
            .into_iter()
            .find(|task| kelos.agents.running(ns.name(), task) > 0))
    })
    .await?;
    ensure!(queued(&tasks, "waits", "WaitingForAdmission").await?["status"] == "True");
    kueue.process().start().await?;
    for name in ["waits", "late"] {
        queued(&tasks, name, "Admitted").await?;
        kelos.agents.finish(ns.name(), name, Outcome::succeeded()).await?;
        await_object(&tasks, name, "succeeds", |task| task.phase() == "Succeeded").await?;
    }
    Ok(())
}

#[tokio::test]
async fn kueues_webhook_before_or_after_ours_gives_the_same_job() -> anyhow::Result<()> {
    let world = World::labelled("order", &[("kueue-first", "yes")], json!({"queueName": "agents"})).await?;
    world.queue(1).await?;
    let job = world.by_hand("a").await?;
    let made = || async {
        let args = ["create", "--dry-run=server", "-ojson", "-f-"];
        let mut made: Value =
            serde_json::from_str(&world.ns.kubectl_with_input(args, &job.to_string()).await?.stdout_ok()?)?;
        for field in ["uid", "creationTimestamp", "managedFields"] {
            made["metadata"].as_object_mut().context("metadata")?.remove(field);
        }
        // The API server makes these of the uid, which each dry run has its own of.
        made["spec"].as_object_mut().context("spec")?.remove("selector");
        made["spec"]["template"]["metadata"]
            .as_object_mut()
            .context("template")?
            .remove("labels");
        anyhow::Ok(made)
    };
    let after = made().await?;
    ensure!(
        after["spec"]["suspend"] == true && after["metadata"]["labels"][QUEUE] == "agents",
        "{after}"
    );

    // In this namespace Kueue's webhook now runs before ours, by its name, and not after.
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(world.cp.client());
    let kueues = configurations.get("kueue-mutating-webhook-configuration").await?;
    let mut kueues = serde_json::to_value(kueues)?;
    let webhooks = kueues["webhooks"].as_array_mut().context("no webhooks")?;
    let jobs = webhooks
        .iter_mut()
        .find(|webhook| webhook["name"] == "mjob.kb.io")
        .context("no webhook for Jobs")?;
    let mut first = jobs.clone();
    first["namespaceSelector"] = json!({"matchLabels": {"kueue-first": "yes"}});
    jobs["namespaceSelector"] = json!({"matchExpressions": [{"key": "kueue-first", "operator": "DoesNotExist"}]});
    let webhooks = json!({"webhooks": webhooks});
    let name = "kueue-mutating-webhook-configuration";
    configurations
        .patch(name, &PatchParams::default(), &Patch::Merge(webhooks))
        .await?;
    let first: MutatingWebhookConfiguration =
        serde_json::from_value(json!({"metadata": {"name": "aaa-kueue"}, "webhooks": [first]}))?;
    configurations.create(&PostParams::default(), &first).await?;
    let order = eventually_that(
        "Kueue comes first",
        PATIENCE,
        || async {
            let mark = world.cp.audit().mark()?;
            made().await?;
            let events = world.cp.audit().since(mark).await?;
            let own = events
                .iter()
                .filter(|event| event.object_ref.namespace == world.ns.name());
            let calls = own.flat_map(AuditEvent::webhooks).map(|call| call.configuration);
            Ok(calls
                .filter(|name| name.contains("kueue") || name.contains("taskgate"))
                .collect::<Vec<_>>())
        },
        |order: &Vec<String>| order.first().is_some_and(|name| name == "aaa-kueue"),
    )
    .await?;
    ensure!(order == ["aaa-kueue", "admission.taskgate.dev"], "{order:?}");
    ensure!(made().await? == after, "the order matters");
    Ok(())
}

/// At rest taskgate asks for nothing, whether or not there is a Kueue.
async fn silence(cp: &ControlPlane) -> anyhow::Result<()> {
    eventually("taskgate is done", PATIENCE, || async {
        asks_nothing(cp, Duration::from_secs(2)).await
    })
    .await?;
    asks_nothing(cp, Duration::from_secs(12)).await
}

async fn asks_nothing(cp: &ControlPlane, time: Duration) -> anyhow::Result<()> {
    let mark = cp.audit().mark()?;
    never("taskgate asks for something at rest", time, || async {
        Ok(requests(cp, mark).await?.into_iter().next())
    })
    .await
}

async fn requests(cp: &ControlPlane, mark: taskgate_e2e::Marker) -> anyhow::Result<Vec<String>> {
    let events = cp.audit().since(mark).await?;
    let ours = events.iter().filter(|event| event.user_agent.starts_with("taskgate"));
    Ok(ours.map(AuditEvent::summary).collect())
}
