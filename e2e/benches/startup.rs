//! How long it takes from exec to the first create that is governed, with the certificates there and without, and what taskgate
//! has in memory while idle. Figures, no test: `make bench` prints them.

// A program for a person at a terminal: printing is what it is for.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Secret;
use kelos_standin::{CRDS, types::Task};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, GATE_NAMESPACE, Gate, Namespace, PATIENCE, eventually};

/// Starts of each kind.
const RUNS: usize = 15;
/// Until what a start needed is given back.
const IDLE: Duration = Duration::from_secs(20);
const SECRET: &str = "taskgate-serving-cert";
const CONFIGURATION: &str = "admission.taskgate.dev";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).audit(false).start().await?;
    let gate = Gate::builder()
        .registration_flag("--failure-policy=fail")
        .serve_flag("--no-leader-election")
        .start(&cp)
        .await?;
    let ns = cp.namespace("startup").await?;
    let policy = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"},
        "spec": {"metadata": {"labels": {"team": "blue"}}},
    });
    ns.apply_yaml(&policy.to_string()).await?;
    first_governed(&ns, Instant::now()).await?;
    tokio::time::sleep(IDLE).await;
    println!("idle: {} KiB resident", resident(gate.process().pid())?);
    for with_secret in [true, false] {
        let mut took = Vec::new();
        for _ in 0..RUNS {
            gate.process().kill().await?;
            if !with_secret {
                remove_certificates(&cp).await?;
            }
            let began = Instant::now();
            let (started, governed) = tokio::join!(gate.process().start(), first_governed(&ns, began));
            started?;
            took.push(governed?);
        }
        took.sort_unstable();
        let secret = if with_secret { "there" } else { "to be made" };
        println!(
            "exec to the first governed create, certificates {secret}: median {:?}, slowest {:?} of {RUNS}",
            took[RUNS / 2],
            took[RUNS - 1]
        );
    }
    Ok(())
}

/// Tries until a create is governed; how long after `began` it was.
async fn first_governed(ns: &Namespace, began: Instant) -> anyhow::Result<Duration> {
    let tasks = ns.api::<Task>();
    let task = serde_json::from_value(json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": "probe"},
        "spec": {"type": "claude-code", "prompt": "fix", "credentials": {"type": "none"}},
    }))?;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    while began.elapsed() < PATIENCE {
        let made = tasks.create(&params, &task).await;
        if made.is_ok_and(|made| made.labels().contains_key("team")) {
            return Ok(began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    anyhow::bail!("no create was governed within {PATIENCE:?}")
}

/// Deletes the Secret, and the bundle of both configurations.
async fn remove_certificates(cp: &ControlPlane) -> anyhow::Result<()> {
    let secrets: Api<Secret> = Api::namespaced(cp.client(), GATE_NAMESPACE);
    secrets.delete(SECRET, &DeleteParams::default()).await?;
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        let found = cp.kubectl(["get", kind, CONFIGURATION, "-ojson"]).await?.stdout_ok()?;
        let found: Value = serde_json::from_str(&found)?;
        let count = found["webhooks"].as_array().context("webhooks")?.len();
        let remove = |index| json!({"op": "remove", "path": format!("/webhooks/{index}/clientConfig/caBundle")});
        let patch = Value::Array((0..count).map(remove).collect()).to_string();
        let args = ["patch", kind, CONFIGURATION, "--type=json", "-p", &patch];
        cp.kubectl(args).await?.stdout_ok()?;
    }
    eventually("the Secret is gone", PATIENCE, || async {
        ensure!(secrets.get_opt(SECRET).await?.is_none());
        Ok(())
    })
    .await
}

/// What the kernel says is resident, in KiB.
fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kib.parse()?)
}
