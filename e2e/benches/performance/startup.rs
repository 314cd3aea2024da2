//! How long it takes from exec to the first create that is governed, with the certificates there and without, and what taskgate has
//! in memory while idle.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Secret;
use kelos_standin::{CRDS, types::Task};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, GATE_NAMESPACE, Gate, Namespace, PATIENCE, eventually, policy, task};

use crate::{scale::memory, statistics::Sample};

/// Starts of each kind.
const RUNS: usize = 15;
/// Until what a start needed is given back.
const IDLE: Duration = Duration::from_secs(20);
const SECRET: &str = "taskgate-serving-cert";
const CONFIGURATION: &str = "admission.taskgate.dev";

/// Measures both.
pub(crate) async fn measure() -> anyhow::Result<String> {
    let cp = ControlPlane::builder().crds(CRDS).audit(false).start().await?;
    let gate = Gate::builder()
        .registration_flag("--failure-policy=fail")
        .without_leader_election();
    let gate = gate.start(&cp).await?;
    let ns = cp.namespace("startup").await?;
    let label = json!({"metadata": {"labels": {"team": "blue"}}});
    ns.apply_yaml(&policy("agents", &label).to_string()).await?;
    first_governed(&ns, Instant::now()).await?;
    tokio::time::sleep(IDLE).await;
    let mut text = "| What | Figure |\n|---|---|\n".to_owned();
    writeln!(text, "| memory while idle | {} |", memory(gate.process())?)?;
    for (what, with_secret) in [
        ("with Secret and `caBundle`", true),
        ("when taskgate creates CA, Secret and `caBundle`", false),
    ] {
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
        let took = Sample::of_times(took);
        let (median, slowest) = (took.median(), took.percentile(100));
        let what = format!("exec to the first governed create, {what}: median / slowest of {RUNS}");
        writeln!(text, "| {what} | {median:.0} ms / {slowest:.0} ms |")?;
    }
    Ok(text)
}

/// Tries until a create is governed; how long after `began` it was.
async fn first_governed(ns: &Namespace, began: Instant) -> anyhow::Result<Duration> {
    let tasks = ns.api::<Task>();
    let task = serde_json::from_value(task("probe"))?;
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
        let found = cp.kubectl(["get", kind, CONFIGURATION, "-ojson"]).await?.json()?;
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
