//! `make run`: a control plane with taskgate enforcing on it, and a short tour of what it does, in real kubectl output.
//! Afterwards it is the reader's until Ctrl-C; with `ONCE=1` it ends after the tour. Nothing is left behind either way.

mod standins;
mod terminal;

use anyhow::Context as _;
use serde_json::Value;
use taskgate_e2e::{ControlPlane, Gate, Kueue, PATIENCE, eventually};

use standins::{start_foreman, start_kelos};
use terminal::{heading, say, show_file, timed, typed, typed_with_input};

const NAMESPACE: &str = "team-a";
const POLICY: &str = include_str!("../../../tour/policy.yaml");
const SPAWNER: &str = include_str!("../../../tour/spawner.yaml");
const FLAKY: &str = include_str!("../../../tour/flaky.yaml");
const TASK: &str = include_str!("../../../tour/task.yaml");
const KUEUE: &str = include_str!("../../../tour/kueue.yaml");
const RETRY: &str = include_str!("../../../tour/retry.yaml");
const WORKLOAD: &str = include_str!("../../../tour/workload.yaml");
/// Where each Task stands.
const STANDING: &str = "kubectl -n team-a get tasks.kelos.dev '-ocustom-columns=TASK:.metadata.name,PHASE:.status.phase,\
    QUEUED:.status.conditions[?(@.type==\"Queued\")].reason,WHY:.status.conditions[?(@.type==\"Queued\")].message'";
/// Where a Workload stands.
const RUN: &str = "kubectl -n team-a get workloads.foreman.llmkube.dev '-ocustom-columns=WORKLOAD:.metadata.name,\
    ATTEMPT:.metadata.annotations.foreman\\.llmkube\\.dev/attempt,CODER:.spec.coderAgentRef.name,PHASE:.status.phase'";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    tokio::select! {
        result = &mut interrupted => {
            result.context("listening for Ctrl-C")?;
            say("Stopped.");
            Ok(())
        }
        result = tour() => result,
    }
}

async fn tour() -> anyhow::Result<()> {
    let cp = timed(
        "Starting etcd, kube-apiserver and kube-controller-manager",
        ControlPlane::start(),
    )
    .await?;
    let _kelos = timed(
        "Starting a stand-in for Kelos, with a GitHub of its own",
        start_kelos(&cp),
    )
    .await?;
    let _gate = timed("Installing and starting taskgate", Gate::start(&cp)).await?;
    cp.apply_yaml(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}"
    ))
    .await?;

    let _kueue = timed("Installing and starting Kueue", Kueue::start(&cp)).await?;
    cp.apply_yaml(KUEUE).await?;

    heading("1. One policy");
    show_file(POLICY);
    typed_with_input(&cp, "kubectl apply -f policy.yaml", POLICY).await?;
    until(
        &cp,
        "the policy is in force",
        &["get", "taskpolicy", "agents"],
        |policy| policy.pointer("/status/conditions/0/status") == Some(&Value::from("True")),
    )
    .await?;
    typed(&cp, "kubectl -n team-a get taskpolicies").await?;

    heading("2. A spawner makes Tasks for two issues; every Task has its team");
    cp.apply_yaml(SPAWNER).await?;
    until(&cp, "one Task runs, one waits", &["get", "tasks.kelos.dev"], |list| {
        let phases: Vec<_> = items(list)
            .filter_map(|task| task.pointer("/status/phase")?.as_str())
            .collect();
        // Right after a start both may still be told apart by what was known a moment ago.
        let mut reasons: Vec<_> = items(list)
            .filter_map(|task| queued(task)?["reason"].as_str())
            .collect();
        reasons.sort_unstable();
        phases.contains(&"Running") && reasons == ["Admitted", "WaitingForAdmission"]
    })
    .await?;
    typed(&cp, "kubectl -n team-a get tasks.kelos.dev -L team").await?;

    heading("3. Kueue has a quota of one. Their Jobs have its queue's name; one is suspended. Kelos is unchanged.");
    typed(
        &cp,
        "kubectl -n team-a get jobs \
         -o custom-columns=JOB:.metadata.name,SUSPENDED:.spec.suspend,QUEUE:.metadata.labels.kueue\\.x-k8s\\.io/queue-name",
    )
    .await?;

    heading("4. The Task that waits says why; when the first is done, it runs");
    typed(&cp, STANDING).await?;
    until(
        &cp,
        "the first is done, the second runs",
        &["get", "tasks.kelos.dev"],
        |list| {
            let phases: Vec<_> = items(list)
                .filter_map(|task| task.pointer("/status/phase")?.as_str())
                .collect();
            phases.contains(&"Succeeded")
                && !phases.contains(&"Pending")
                && items(list).all(|task| queued(task).is_some_and(|told| told["reason"] == "Admitted"))
        },
    )
    .await?;
    typed(&cp, STANDING).await?;

    breaker(&cp).await?;

    let _foreman = timed("\nStarting a stand-in for Foreman", start_foreman(&cp)).await?;
    retry(&cp).await?;

    if std::env::var_os("ONCE").is_some_and(|once| once == "1") {
        say("\nThe tour is over.");
        return Ok(());
    }
    say(&format!(
        "\nIt is yours until Ctrl-C:\n\n    export KUBECONFIG={}\n    kubectl -n {NAMESPACE} get taskgate,tasks.kelos.dev,jobs\n",
        cp.kubeconfig().display()
    ));
    std::future::pending().await
}

async fn breaker(cp: &ControlPlane) -> anyhow::Result<()> {
    heading("5. The agent of issue 103 fails twice: its circuit breaker opens, and it gets no further Task");
    cp.apply_yaml(FLAKY).await?;
    until(cp, "the breaker is open", &["get", "workitems"], |list| {
        items(list).any(|item| item.pointer("/status/breaker") == Some(&Value::from("Open")))
    })
    .await?;
    typed(cp, "kubectl -n team-a get workitems").await?;
    show_file(TASK);
    typed_with_input(cp, "kubectl create --dry-run=server -f once-more.yaml", TASK).await?;
    typed(cp, "taskgate explain item/flaky/103 -n team-a").await?;

    heading("6. Reset its failures, and it may run");
    typed(cp, "taskgate reset flaky/103 -n team-a --reason repaired").await?;
    typed_with_input(cp, "kubectl create --dry-run=server -f once-more.yaml", TASK).await
}

async fn retry(cp: &ControlPlane) -> anyhow::Result<()> {
    heading("7. A Workload of Foreman's fails: it is run again, under today's policy, and told why it failed");
    show_file(RETRY);
    typed_with_input(cp, "kubectl apply -f retry.yaml", RETRY).await?;
    show_file(WORKLOAD);
    typed_with_input(cp, "kubectl create -f workload.yaml", WORKLOAD).await?;
    let name = ["get", "workloads.foreman.llmkube.dev", "wl-acme-app-7"];
    until(cp, "it is run again", &name, |workload| {
        workload.pointer("/metadata/annotations/foreman.llmkube.dev~1attempt") == Some(&Value::from("2"))
    })
    .await?;
    typed(cp, RUN).await?;
    typed(
        cp,
        "kubectl -n team-a get workloads.foreman.llmkube.dev wl-acme-app-7 -ojsonpath={.spec.intent}",
    )
    .await?;

    heading("8. It fails up to its cap, and stays: untouched, and remembered");
    until(cp, "it is given up", &["get", "workitems"], |list| {
        items(list).any(|item| item.to_string().contains("MaxAttemptsReached"))
    })
    .await?;
    typed(cp, RUN).await?;
    typed(
        cp,
        "kubectl -n team-a get workitems '-ocustom-columns=ITEM:.spec.item,ATTEMPT:.status.retry.attempt,\
         WHY:.status.conditions[?(@.type==\"Retry\")].message'",
    )
    .await
}

async fn until(cp: &ControlPlane, what: &str, get: &[&str], condition: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let args: Vec<_> = ["-n", NAMESPACE]
        .iter()
        .chain(get)
        .chain(&["-o", "json"])
        .copied()
        .collect();
    eventually(what, PATIENCE, || async {
        let object: Value = serde_json::from_str(&cp.kubectl(args.clone()).await?.stdout_ok()?)?;
        anyhow::ensure!(condition(&object), "{object}");
        Ok(())
    })
    .await
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items").and_then(Value::as_array).into_iter().flatten()
}

/// What a Task says of its queue.
fn queued(task: &Value) -> Option<&Value> {
    let conditions = task.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Queued")
}
