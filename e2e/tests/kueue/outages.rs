//! Kueue not installed, installed later, killed, and its webhook before or after ours.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kelos_standin::CRDS;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{
    AuditEvent, ControlPlane, Gate, KelosNamespace, PATIENCE, QUEUE_NAME, eventually, eventually_that, never,
    suggested_command,
};

use crate::support::{apply_task, job_for_new_task, kueue, labelled};

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
async fn without_kueue_a_job_waits_with_a_reason_and_a_later_kueue_is_picked_up() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).crds(FOREMANS).start().await?;
    let gate = Gate::builder().without_leader_election().start(&cp).await?;
    let ns = KelosNamespace::start(cp.namespace("late").await?).await?;
    let foremans = "{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Workload, metadata: {name: a}}";
    ns.apply_yaml(foremans).await?;
    ns.policy(json!({"queueName": "agents"})).await?;
    apply_task(&ns, "a").await?;
    let told = ns.await_queued("a", "KueueNotInstalled").await?;
    ensure!(told["status"] == "True", "{told}");
    eventually("there is an Event", PATIENCE, || async {
        let events = ns.kubectl(["get", "events", "-oname", "--field-selector=reason=KueueNotInstalled"]);
        ensure!(events.await?.stdout_ok()?.lines().count() == 1);
        Ok(())
    })
    .await?;
    is_silent(&cp).await?;

    let pid = gate.process().pid();
    let _kueue = kueue().start(&cp).await?;
    ns.await_queued("a", "NoSuchLocalQueue").await?;
    let metrics = gate.metrics().await?;
    for trap in ["KueueNotInstalled", "NoSuchLocalQueue"] {
        let counted = metrics.value("taskgate_queue_states_total", &[("reason", trap)]);
        ensure!(counted == Some(1.0), "{trap}: {counted:?}");
    }
    ns.apply_cluster_queue(1).await?;
    ns.local_queue("agents", json!({})).await?;
    ns.await_queued("a", "Admitted").await?;
    ns.succeed("a").await?;
    ensure!(
        gate.process().is_running() && gate.process().pid() == pid,
        "taskgate was restarted"
    );
    is_silent(&cp).await
}

#[tokio::test]
async fn kueue_may_be_killed_and_started_again() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let kueue = kueue().start(&cp).await?;
    let _gate = Gate::start(&cp).await?;
    let ns = KelosNamespace::start(cp.namespace("killed").await?).await?;
    ns.policy(json!({"queueName": "agents"})).await?;
    ns.apply_cluster_queue(1).await?;
    ns.local_queue("agents", json!({})).await?;
    for (name, told) in [("runs", "Admitted"), ("waits", "WaitingForAdmission")] {
        apply_task(&ns, name).await?;
        ns.await_queued(name, told).await?;
    }
    kueue.process().kill().await?;
    // Kueue's own webhook refuses the Job; Kelos tries again.
    apply_task(&ns, "late").await?;
    let explanation = cp.explain(ns.name(), "late").await?;
    suggested_command(
        &explanation,
        "the blocker is Kueue: the API server cannot call its webhook mjob.kb.io, ",
    )?;
    ns.succeed("runs").await?;
    never("anything starts without Kueue", Duration::from_secs(3), || async {
        Ok(["waits", "late"]
            .into_iter()
            .find(|task| ns.agents.running(ns.name(), task) > 0))
    })
    .await?;
    ensure!(ns.await_queued("waits", "WaitingForAdmission").await?["status"] == "True");
    kueue.process().start().await?;
    for name in ["waits", "late"] {
        ns.await_queued(name, "Admitted").await?;
        ns.succeed(name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn kueues_webhook_before_or_after_ours_gives_the_same_job() -> anyhow::Result<()> {
    let fixture = labelled("order", &[("kueue-first", "yes")], json!({"queueName": "agents"})).await?;
    fixture.queue(1).await?;
    let job = job_for_new_task(&fixture, "a").await?;
    let made = || async {
        let args = ["create", "--dry-run=server", "-ojson", "-f-"];
        let mut made: Value =
            serde_json::from_str(&fixture.kubectl_with_input(args, &job.to_string()).await?.stdout_ok()?)?;
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
        after["spec"]["suspend"] == true && after["metadata"]["labels"][QUEUE_NAME] == "agents",
        "{after}"
    );

    // In this namespace Kueue's webhook now runs before ours, by its name, and not after.
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(fixture.cp.client());
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
            let mark = fixture.cp.audit().mark()?;
            made().await?;
            let events = fixture.cp.audit().since(mark).await?;
            let own = events
                .iter()
                .filter(|event| event.object_ref.namespace == fixture.ns.name());
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

/// While idle taskgate sends no request, whether or not there is a Kueue.
async fn is_silent(cp: &ControlPlane) -> anyhow::Result<()> {
    eventually("taskgate is done", PATIENCE, || async {
        sends_nothing(cp, Duration::from_secs(2)).await
    })
    .await?;
    sends_nothing(cp, Duration::from_secs(12)).await
}

async fn sends_nothing(cp: &ControlPlane, time: Duration) -> anyhow::Result<()> {
    let mark = cp.audit().mark()?;
    never("taskgate sends a request while idle", time, || async {
        Ok(requests(cp, mark).await?.into_iter().next())
    })
    .await
}

async fn requests(cp: &ControlPlane, mark: taskgate_e2e::Marker) -> anyhow::Result<Vec<String>> {
    let events = cp.audit().since(mark).await?;
    let ours = events.iter().filter(|event| event.user_agent.starts_with("taskgate"));
    Ok(ours.map(AuditEvent::summary).collect())
}
