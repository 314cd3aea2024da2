//! `make run`: a control plane with taskgate enforcing on it, and a short tour of what it does, in real kubectl output.
//! Afterwards it is the reader's until Ctrl-C; with `ONCE=1` it ends after the tour. Nothing is left behind either way.

// A program for a person at a terminal: printing is what it is for.
#![allow(clippy::print_stdout)]

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use taskgate_e2e::{ControlPlane, Gate, Kueue, Process, ProcessSpec, binary, eventually, free_port};

const NAMESPACE: &str = "team-a";
const POLICY: &str = include_str!("../../tour/policy.yaml");
const SPAWNER: &str = include_str!("../../tour/spawner.yaml");
const TASK: &str = include_str!("../../tour/task.yaml");
const KUEUE: &str = include_str!("../../tour/kueue.yaml");
const RETRY: &str = include_str!("../../tour/retry.yaml");
const WORKLOAD: &str = include_str!("../../tour/workload.yaml");
/// Where each Task stands.
const STANDING: &str = "kubectl -n team-a get tasks.kelos.dev '-ocustom-columns=TASK:.metadata.name,PHASE:.status.phase,\
    QUEUED:.status.conditions[?(@.type==\"Queued\")].reason,WHY:.status.conditions[?(@.type==\"Queued\")].message'";
/// Where a Workload stands.
const RUN: &str = "kubectl -n team-a get workloads.foreman.llmkube.dev '-ocustom-columns=WORKLOAD:.metadata.name,\
    ATTEMPT:.metadata.annotations.foreman\\.llmkube\\.dev/attempt,CODER:.spec.coderAgentRef.name,PHASE:.status.phase'";
const PATIENCE: Duration = Duration::from_mins(1);

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
        phases.len() == 2 && phases.contains(&"Running") && items(list).all(|task| queued(task).is_some())
    })
    .await?;
    typed(&cp, "kubectl -n team-a get tasks.kelos.dev -L team").await?;

    heading("3. Kueue has a quota of one. Their Jobs have its queue's name; one is suspended. Nobody changed Kelos.");
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

    heading(
        "5. An item that failed three times (written by hand here): no further Task. A dry run gives the true verdict.",
    );
    remember_failures(&cp).await?;
    typed(&cp, "kubectl -n team-a get workitems").await?;
    show_file(TASK);
    typed_with_input(&cp, "kubectl create --dry-run=server -f once-more.yaml", TASK).await?;

    heading("6. Forget its failures, and it may run");
    typed(&cp, "kubectl -n team-a delete workitem fixer-103-da53f9f214").await?;
    until_allowed(&cp).await?;
    typed_with_input(&cp, "kubectl create --dry-run=server -f once-more.yaml", TASK).await?;

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

async fn start_kelos(cp: &ControlPlane) -> anyhow::Result<Process> {
    let seed = cp.dir().join("github.yaml");
    std::fs::write(&seed, include_str!("../../tour/github.yaml")).context("writing the seed")?;
    let metrics = format!("127.0.0.1:{}", free_port()?);
    let spec = ProcessSpec::new("kelos-standin", binary("kelos-standin")?)
        .args(["--kubeconfig", &cp.kubeconfig().display().to_string()])
        .args(["--seed", &seed.display().to_string()])
        .args([
            "--github-stub",
            &format!("127.0.0.1:{}", free_port()?),
            "--metrics",
            &metrics,
        ])
        .args(["--install-crds", "--no-runtimes", "--agents"])
        .ready_at(format!("http://{metrics}/metrics"));
    cp.spawn(spec).await
}

async fn start_foreman(cp: &ControlPlane) -> anyhow::Result<Process> {
    let seed = cp.dir().join("foreman.yaml");
    std::fs::write(&seed, include_str!("../../tour/foreman.yaml")).context("writing the seed")?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let spec = ProcessSpec::new("foreman-standin", binary("foreman-standin")?)
        .args(["--kubeconfig", &cp.kubeconfig().display().to_string()])
        .args(["--seed", &seed.display().to_string()])
        .args(["--install-crds", "--listen", &listen])
        .ready_at(format!("http://{listen}/healthz"));
    let foreman = cp.spawn(spec).await?;
    // The garbage collector learns of new kinds every 30 s, or at its start.
    cp.controller_manager().restart().await?;
    cp.apply_yaml(include_str!("../../tour/agents.yaml")).await?;
    Ok(foreman)
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

/// Writes the memory of an item by hand, as the controller would after three failures.
async fn remember_failures(cp: &ControlPlane) -> anyhow::Result<()> {
    cp.apply_yaml(include_str!("../../tour/work-item.yaml")).await?;
    let status = r#"{"status": {"breaker": "Open", "consecutiveFailures": 3, "openedAt": "2026-11-20T10:00:00Z",
        "totalCostUSD": "1.50", "reason": "MaxRetriesExceeded"}}"#;
    let args = [
        "-n",
        NAMESPACE,
        "patch",
        "wi",
        "fixer-103-da53f9f214",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ];
    cp.kubectl(args).await?.stdout_ok()?;
    eventually("taskgate knows of the failures", PATIENCE, || async {
        let output = cp
            .kubectl_with_input(["create", "--dry-run=server", "-f-"], TASK)
            .await?;
        output.stderr_failed().map(drop)
    })
    .await
}

async fn until_allowed(cp: &ControlPlane) -> anyhow::Result<()> {
    eventually("the item may run again", PATIENCE, || async {
        cp.kubectl_with_input(["create", "--dry-run=server", "-f-"], TASK)
            .await?
            .stdout_ok()
            .map(drop)
    })
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

/// Shows a command as it would be typed, runs it, and shows all that it prints.
async fn typed(cp: &ControlPlane, line: &str) -> anyhow::Result<()> {
    typed_with_input(cp, line, "").await
}

/// As [`typed`], with the content of the file that the line names.
async fn typed_with_input(cp: &ControlPlane, line: &str, file: &str) -> anyhow::Result<()> {
    say(&styled("36", &format!("$ {line}")));
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let args: Vec<&str> = words
        .iter()
        .map(|word| word.strip_suffix(".yaml").map_or(word.trim_matches('\''), |_| "-"))
        .collect();
    let output = cp.kubectl_with_input(args, file).await?;
    say(format!("{}{}", output.stdout, output.stderr).trim_end());
    Ok(())
}

async fn timed<T>(what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let started = Instant::now();
    print!("{what} … ");
    std::io::stdout().flush().context("writing to the terminal")?;
    let done = work.await?;
    say(&format!("{:.1} s", started.elapsed().as_secs_f32()));
    Ok(done)
}

fn heading(text: &str) {
    say(&styled("1", &format!("\n{text}")));
}

/// `text` in an ANSI style, if somebody looks at a terminal.
fn styled(style: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() {
        format!("\x1b[{style}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn show_file(text: &str) {
    say(text.trim_end());
}

fn say(text: &str) {
    println!("{text}");
}
