//! `taskgate doctor` on an installation that is well, and on the same one with a fault at a time. The tables beside its code hold
//! each line; here it is that the API server's real answers are read as they are meant.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, ensure};
use kelos_standin::types::TaskSpawner;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Output, PATIENCE, Pods, eventually, free_port};
use tokio::process::Command;

use crate::support::{SYSTEM, apply_overlay, governed, plane, pods};

const MUTATING: &[&str] = &["mutatingwebhookconfiguration", "admission.taskgate.dev"];
const VALIDATING: &[&str] = &["validatingwebhookconfiguration", "admission.taskgate.dev"];

/// How a fault is planted. It is repaired by writing back what was there.
enum Plant {
    /// A JSON patch of an object.
    Patch(&'static [&'static str], Value),
    /// A further object.
    Make(Value),
    /// An object goes.
    Remove(&'static [&'static str]),
}

struct Fault {
    check: &'static str,
    level: &'static str,
    words: &'static str,
    plant: Plant,
}

fn fault(check: &'static str, level: &'static str, words: &'static str, plant: Plant) -> Fault {
    Fault {
        check,
        level,
        words,
        plant,
    }
}

/// Runs `taskgate doctor`.
fn doctor(kubeconfig: &Path, args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(taskgate_e2e::binary("taskgate")?);
    command.arg("doctor").arg("--kubeconfig").arg(kubeconfig).args(args);
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// What it finds, with its exit code, which must be the one of the worst finding.
async fn asked(kubeconfig: &Path, args: &[&str]) -> anyhow::Result<Value> {
    let output = doctor(kubeconfig, &[&["-o", "json"], args].concat())?.output().await?;
    let report: Value =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let code = match (report["failures"].as_u64(), report["warnings"].as_u64()) {
        (Some(0), Some(0)) => 0,
        (Some(0), _) => 3,
        _ => 1,
    };
    ensure!(output.status.code() == Some(code), "{}: {report:#}", output.status);
    Ok(report)
}

fn has_finding(report: &Value, check: &str, level: &str, words: &str) -> bool {
    let findings = report["findings"].as_array();
    findings.into_iter().flatten().any(|finding| {
        let message = finding["message"].as_str().unwrap_or_default();
        finding["check"] == check && finding["level"] == level && message.contains(words)
    })
}

async fn healthy(cp: &ControlPlane) -> anyhow::Result<()> {
    eventually("nothing is wrong", PATIENCE, || async {
        let report = asked(cp.kubeconfig(), &["-q"]).await?;
        ensure!(report["failures"] == 0 && report["warnings"] == 0, "{report:#}");
        Ok(())
    })
    .await
}

async fn await_finding(cp: &ControlPlane, fault: &Fault) -> anyhow::Result<()> {
    let Fault {
        check, level, words, ..
    } = fault;
    eventually(format!("{check} finds: {words}"), PATIENCE, || async {
        let report = asked(cp.kubeconfig(), &["-q"]).await?;
        ensure!(has_finding(&report, check, level, words), "{report:#}");
        Ok(())
    })
    .await
}

/// An object as it can be written again.
async fn saved(cp: &ControlPlane, object: &[&str]) -> anyhow::Result<String> {
    let found = cp.kubectl(["get", "-ojson"].iter().chain(object)).await?.stdout_ok()?;
    let mut found: Value = serde_json::from_str(&found)?;
    for field in ["resourceVersion", "uid", "managedFields"] {
        found["metadata"][field] = Value::Null;
    }
    Ok(found.to_string())
}

async fn with_input(cp: &ControlPlane, args: &[&str], input: &str) -> anyhow::Result<Output> {
    cp.kubectl_with_input(args, input).await
}

/// Plants the fault, awaits the finding, and repairs the fault.
async fn found_and_repaired(cp: &ControlPlane, fault: &Fault) -> anyhow::Result<()> {
    match &fault.plant {
        Plant::Patch(object, patch) => {
            let before = saved(cp, object).await?;
            let patch = patch.to_string();
            let args = ["patch", "--type=json", "-p", &patch];
            cp.kubectl(args.iter().chain(*object)).await?.stdout_ok()?;
            await_finding(cp, fault).await?;
            with_input(cp, &["replace", "-f-"], &before).await?.stdout_ok()?;
        }
        Plant::Make(object) => {
            let object = object.to_string();
            with_input(cp, &["create", "-f-"], &object).await?.stdout_ok()?;
            await_finding(cp, fault).await?;
            with_input(cp, &["delete", "-f-"], &object).await?.stdout_ok()?;
        }
        Plant::Remove(object) => {
            let before = saved(cp, object).await?;
            cp.kubectl(["delete"].iter().chain(*object)).await?.stdout_ok()?;
            await_finding(cp, fault).await?;
            with_input(cp, &["create", "-f-"], &before).await?.stdout_ok()?;
        }
    }
    Ok(())
}

fn replace(path: &str, value: &Value) -> Value {
    json!([{"op": "replace", "path": path, "value": value}])
}

/// A configuration about nothing, which leads to `service` of `namespace`.
fn configuration(kind: &str, name: &str, service: (&str, &str), path: &str) -> Value {
    let (namespace, service) = service;
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "webhooks": [{
            "name": "one.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
            "clientConfig": {"service": {"name": service, "namespace": namespace, "path": path}},
            "rules": [{"apiGroups": ["example.com"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["nothing"]}],
        }],
    })
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": namespace});
    json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": metadata, "spec": spec})
}

fn faults_of_the_registration() -> Vec<Fault> {
    use Plant::{Make, Patch, Remove};
    vec![
        fault(
            "registration",
            "failure",
            "rules[0].operations",
            Patch(MUTATING, replace("/webhooks/0/rules/0/operations", &json!(["UPDATE"]))),
        ),
        // Also the API server does not ask any more.
        fault(
            "answers",
            "failure",
            "does not ask taskgate about a policy",
            Patch(VALIDATING, replace("/webhooks", &json!([]))),
        ),
        fault(
            "registration",
            "warning",
            "timeoutSeconds is 9",
            Patch(VALIDATING, replace("/webhooks/1/timeoutSeconds", &json!(9))),
        ),
        fault(
            "registration",
            "failure",
            "there is no MutatingWebhookConfiguration",
            Remove(MUTATING),
        ),
        fault(
            "registration",
            "failure",
            "has no port 443",
            Patch(
                &["-n", SYSTEM, "service", "taskgate"],
                replace("/spec/ports/0/port", &json!(8443)),
            ),
        ),
        fault(
            "neighbours",
            "failure",
            "left-behind leads to taskgate",
            Make(configuration(
                "ValidatingWebhookConfiguration",
                "left-behind",
                (SYSTEM, "taskgate"),
                "/",
            )),
        ),
        fault(
            "order",
            "failure",
            "Kueue's a-kueue runs before",
            Make(configuration(
                "MutatingWebhookConfiguration",
                "a-kueue",
                ("kueue-system", "kueue"),
                "/mutate-batch-v1-job",
            )),
        ),
    ]
}

fn other_faults(team: &str) -> Vec<Fault> {
    use Plant::{Make, Patch};
    let limit = |limit: u32| json!({"failurePolicy": {"maxRetriesPerItem": limit}});
    vec![
        fault(
            "kinds",
            "warning",
            "workitems.taskgate.dev is not that of this release",
            Patch(
                &["crd", "workitems.taskgate.dev"],
                json!([{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0"}]),
            ),
        ),
        fault(
            "rights",
            "failure",
            "lacks a right: policies decide about Tasks",
            Patch(
                &["clusterrole", "taskgate"],
                json!([{"op": "remove", "path": "/rules/0"}]),
            ),
        ),
        fault(
            "switch",
            "failure",
            "disabled",
            Make(
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "taskgate-disabled", "namespace": SYSTEM}}),
            ),
        ),
        fault(
            "queues",
            "failure",
            "Kueue is not installed",
            Make(policy(team, "queueing", &json!({"priority": 1, "queueName": "small"}))),
        ),
        fault(
            "policies",
            "warning",
            "selects none of the",
            Make(policy(
                team,
                "misspelt",
                &json!({"selector": {"spawnerNames": ["fixre"]}, "priority": 1, "retry": {"maxAttempts": 2}}),
            )),
        ),
        fault(
            "policies",
            "warning",
            "wins by its name alone",
            Make(policy(team, "zealous", &limit(9))),
        ),
    ]
}

#[tokio::test]
async fn each_fault_has_its_finding_and_a_healthy_installation_none() -> anyhow::Result<()> {
    let cp = plane().await?;
    apply_overlay(&cp, "self-signed").await?;
    let waiting = doctor(cp.kubeconfig(), &["--wait", "10m", "-q"])?
        .stdout(Stdio::piped())
        .spawn()?;
    let report = asked(cp.kubeconfig(), &[]).await?;
    for check in ["certificate", "replicas", "leader", "answers"] {
        ensure!(has_finding(&report, check, "failure", ""), "{check}: {report:#}");
    }
    let running = pods(&cp, SYSTEM, "taskgate").await?;
    let ended = waiting.wait_with_output().await?;
    ensure!(
        matches!(ended.status.code(), Some(0 | 3)),
        "{}",
        String::from_utf8_lossy(&ended.stdout)
    );
    let ns = governed(&cp, "team").await?;
    ns.apply_yaml(&serde_json::to_string(&spawner()?)?).await?;
    healthy(&cp).await?;

    let others = other_faults(ns.name());
    for fault in faults_of_the_registration().into_iter().chain(others) {
        found_and_repaired(&cp, &fault).await.with_context(|| fault.words)?;
    }
    the_namespace_is_opted_out(&cp, ns.name()).await?;
    another_manager_owns_the_bundle(&cp).await?;
    a_pod_is_of_another_image(&cp).await?;
    no_replica_runs(&cp, &running).await?;
    healthy(&cp).await?;
    without_rights_the_findings_say_so(&cp).await?;
    without_a_reader_or_a_server_it_ends(&cp).await
}

fn spawner() -> anyhow::Result<TaskSpawner> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": "fixer"},
        "spec": {
            "when": {"cron": {"schedule": "0 0 1 1 *"}}, "suspend": true,
            "taskTemplate": {"worker": {"type": "claude-code", "credentials": {"type": "none"}}},
        },
    }))?)
}

async fn the_namespace_is_opted_out(cp: &ControlPlane, name: &str) -> anyhow::Result<()> {
    let label = |label: &'static str| cp.kubectl(["label", "namespace", name, label]);
    label("taskgate.dev/admission=disabled").await?.stdout_ok()?;
    let plant = Plant::Make(Value::Null);
    await_finding(
        cp,
        &fault(
            "namespaces",
            "warning",
            "its label opts it out: TaskPolicy/agents",
            plant,
        ),
    )
    .await?;
    label("taskgate.dev/admission-").await?.stdout_ok().map(drop)
}

/// A user applies another bundle: taskgate does not overwrite it, and is not asked any more.
async fn another_manager_owns_the_bundle(cp: &ControlPlane) -> anyhow::Result<()> {
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=argocd",
        "-f-",
    ];
    let applied = |webhooks: Value| {
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "admission.taskgate.dev"}, "webhooks": webhooks,
        });
        object.to_string()
    };
    let foreign = k8s_openapi::ByteString(cp.ca().as_bytes().to_vec());
    let webhook = json!({"name": "validate.policies.taskgate.dev", "clientConfig": {"caBundle": foreign}});
    with_input(cp, &apply, &applied(json!([webhook]))).await?.stdout_ok()?;
    let plant = || Plant::Make(Value::Null);
    await_finding(
        cp,
        &fault(
            "ca-bundle",
            "failure",
            "argocd (admission.taskgate.dev) has written it",
            plant(),
        ),
    )
    .await?;
    // A connection that the API server has already is trusted as it was.
    with_input(cp, &apply, &applied(json!([]))).await?.stdout_ok()?;
    healthy(cp).await
}

async fn a_pod_is_of_another_image(cp: &ControlPlane) -> anyhow::Result<()> {
    let name = cp.kubectl([
        "-n",
        SYSTEM,
        "get",
        "pods",
        "-lapp.kubernetes.io/name=taskgate",
        "-ojsonpath={.items[0].metadata.name}",
    ]);
    let pod = format!("pod/{}", name.await?.stdout_ok()?);
    let set = |image: &'static str| cp.kubectl(["-n", SYSTEM, "set", "image", &pod, image]);
    set("taskgate=ghcr.io/taskgate/taskgate:0.0.9").await?.stdout_ok()?;
    let plant = Plant::Make(Value::Null);
    await_finding(cp, &fault("versions", "warning", "taskgate:0.0.9 and", plant)).await?;
    let own = format!("taskgate=ghcr.io/taskgate/taskgate:{}", env!("CARGO_PKG_VERSION"));
    cp.kubectl(["-n", SYSTEM, "set", "image", &pod, &own])
        .await?
        .stdout_ok()
        .map(drop)
}

async fn no_replica_runs(cp: &ControlPlane, running: &Pods) -> anyhow::Result<()> {
    for process in running.processes() {
        process.kill().await?;
    }
    let plant = || Plant::Make(Value::Null);
    await_finding(cp, &fault("answers", "failure", "failed calling webhook", plant())).await?;
    await_finding(cp, &fault("leader", "failure", "no leader", plant())).await?;
    for process in running.processes() {
        process.start().await?;
    }
    Ok(())
}

async fn without_rights_the_findings_say_so(cp: &ControlPlane) -> anyhow::Result<()> {
    let report = asked(&cp.kubeconfig_as("stranger", &[])?, &[]).await?;
    ensure!(report["failures"] == 0, "{report:#}");
    for check in ["registration", "certificate", "rights", "policies", "answers"] {
        ensure!(
            has_finding(&report, check, "warning", "forbidden"),
            "{check}: {report:#}"
        );
    }
    Ok(())
}

async fn without_a_reader_or_a_server_it_ends(cp: &ControlPlane) -> anyhow::Result<()> {
    let mut gone = doctor(cp.kubeconfig(), &[])?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(gone.stdout.take());
    let output = gone.wait_with_output().await?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && complaint.is_empty(),
        "{}: {complaint}",
        output.status
    );

    let text = std::fs::read_to_string(cp.kubeconfig())?;
    let elsewhere = cp.dir().join("nowhere.kubeconfig");
    let nowhere = format!("https://127.0.0.1:{}", free_port()?);
    std::fs::write(&elsewhere, text.replace(cp.server(), &nowhere))?;
    let report = asked(&elsewhere, &[]).await?;
    ensure!(
        has_finding(&report, "api-server", "failure", "does not answer"),
        "{report:#}"
    );
    Ok(())
}
