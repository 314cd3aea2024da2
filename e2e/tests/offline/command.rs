//! `taskgate check --live`: the cluster's policies and WorkItems, read with the user's rights.

use std::{os::unix::fs::symlink, process::Stdio};

use anyhow::{Context as _, ensure};
use kelos_standin::CRDS;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use taskgate_api::WorkItem;
use taskgate_e2e::{ControlPlane, Gate, binary};
use tokio::process::Command;

/// Exit code and output of a run of `taskgate`.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn run(args: &[&str]) -> anyhow::Result<Run> {
    let mut command = Command::new(binary("taskgate")?);
    let output = command.args(args).stdin(Stdio::null()).output().await?;
    Ok(Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

fn task(name: &str) -> Value {
    json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": name,
            "labels": {"kelos.dev/taskspawner": "fixer"}, "annotations": {"kelos.dev/source-number": "42"}},
        "spec": {"type": "claude-code", "prompt": "p", "credentials": {"type": "none"}}})
}

#[tokio::test]
async fn a_live_cluster_is_asked_for_policies_and_memory() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let _gate = Gate::builder().serve_flag("--no-leader-election").start(&cp).await?;
    let ns = cp.namespace("live").await?;
    let policy = json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"},
        "spec": {"failurePolicy": {"maxRetriesPerItem": 3}}});
    ns.apply_yaml(&policy.to_string()).await?;
    let key = taskgate_policy::ItemIdentity {
        key: "fixer/42".to_owned(),
        item: "42".to_owned(),
        spawner: Some("fixer".to_owned()),
    };
    let name = key.work_item_name();
    let item = json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": {"name": name},
        "spec": {"key": "fixer/42", "item": "42", "spawner": "fixer"}});
    ns.apply_yaml(&item.to_string()).await?;
    let status = json!({"status": {"breaker": "Open", "consecutiveFailures": 3, "openedAt": "2026-01-01T00:00:00Z",
        "lastFailureTime": "2026-01-01T00:00:00Z"}});
    let items = kube::Api::<WorkItem>::namespaced(cp.client_as_taskgate(), ns.name());
    items
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;

    let file = cp.dir().join("task.json");
    std::fs::write(&file, task("once-more").to_string())?;
    let file = file.to_str().context("a path")?;
    let kubeconfig = cp.kubeconfig().to_str().context("a path")?;
    let live = ["check", file, "--live", "--kubeconfig", kubeconfig, "-n", ns.name()];
    let seen = run(&live).await?;
    ensure!(seen.code == Some(1), "{} {}", seen.stdout, seen.stderr);
    ensure!(
        seen.stdout.contains("denied by validate.tasks.taskgate.dev"),
        "{}",
        seen.stdout
    );
    ensure!(
        seen.stdout.contains("item 42 failed 3 times in a row (limit 3)"),
        "{}",
        seen.stdout
    );

    // Without FILES: what is there.
    let seen = run(&["check", "--live", "--kubeconfig", kubeconfig, "-n", ns.name()]).await?;
    let wanted = format!("TaskPolicy {}/agents  allowed", ns.name());
    ensure!(
        seen.code == Some(0) && seen.stdout.contains(&wanted),
        "{} {}",
        seen.stdout,
        seen.stderr
    );

    // Without rights the missing inputs are named; the decision is made from the others.
    let stranger = cp.kubeconfig_as("stranger", &[])?;
    let stranger = stranger.to_str().context("a path")?;
    let seen = run(&["check", file, "--live", "--kubeconfig", stranger, "-n", ns.name()]).await?;
    ensure!(seen.code == Some(3), "{:?} {} {}", seen.code, seen.stdout, seen.stderr);
    ensure!(seen.stdout.contains("cannot list taskpolicies: "), "{}", seen.stdout);

    // kubectl finds the plugin by its name.
    let folder = cp.dir().display();
    symlink(binary("taskgate")?, cp.dir().join("kubectl-taskgate"))?;
    let help = cp
        .paste(&format!("PATH={folder}:$PATH kubectl taskgate check --help"))
        .await?;
    ensure!(help.contains("Usage: kubectl taskgate check "), "{help}");

    // No cluster.
    cp.apiserver().kill().await?;
    let seen = run(&live).await?;
    ensure!(seen.code == Some(1) && seen.stdout.is_empty(), "{}", seen.stdout);
    ensure!(
        seen.stderr.starts_with("taskgate: reading the cluster: cannot list"),
        "{}",
        seen.stderr
    );
    Ok(())
}
