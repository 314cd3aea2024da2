//! What this suite adds to the fixtures: a cluster whose Kelos CRDs are extended, and a Kelos that writes as its own service accounts.

use anyhow::{Context as _, ensure};
use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{
    ControlPlane, Fixture, Gate, KELOS, KelosFixture, KelosNamespace, Namespace, PATIENCE, SharedGate, eventually,
    eventually_that, github, merged,
};
use tokio::sync::OnceCell;

pub(crate) static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));
static ENABLED: OnceCell<()> = OnceCell::const_new();

/// A namespace with Kelos on the shared control plane, whose CRDs are extended.
pub(crate) async fn start(hint: &str) -> anyhow::Result<KelosFixture<'static>> {
    let gate = Gate::builder().without_leader_election().asking(github().await?.url());
    let (cp, gate) = SHARED.get(gate).await?;
    ENABLED.get_or_try_init(|| enable(cp)).await?;
    let ns = KelosNamespace::builder()
        .service_accounts()
        .start(cp.namespace(hint).await?)
        .await?;
    Ok(Fixture { cp, gate, ns })
}

/// What `taskgate kelos-fields ARGS` prints, if it succeeds.
pub(crate) async fn kelos_fields(cp: &ControlPlane, args: &[&str]) -> anyhow::Result<String> {
    let args = [&["kelos-fields"], args].concat();
    cp.taskgate(cp.kubeconfig(), &args).await?.stdout_ok()
}

/// Extends the CRDs, and waits until the API server stores the fields and sends writes of them to taskgate.
pub(crate) async fn enable(cp: &ControlPlane) -> anyhow::Result<()> {
    kelos_fields(cp, &["enable"]).await?;
    await_stored(cp, true).await
}

/// Waits until the API server keeps the fields of a TaskSpawner, with their copy, or drops them.
pub(crate) async fn await_stored(cp: &ControlPlane, stored: bool) -> anyhow::Result<()> {
    let probe = spawner("probe", &policy(3));
    eventually_that(
        format!("the fields are stored: {stored}"),
        PATIENCE,
        async || {
            let args = ["create", "--dry-run=server", "--validate=ignore", "-ojson", "-f", "-"];
            cp.kubectl_with_input(args, &probe.to_string()).await?.json()
        },
        |seen: &Value| {
            let copied = seen["metadata"]["annotations"].get(keys::KELOS_FIELDS).is_some();
            seen["spec"]["failurePolicy"].is_object() == stored && copied == stored
        },
    )
    .await
    .map(drop)
}

/// `spec.failurePolicy` with this limit.
pub(crate) fn policy(limit: u32) -> Value {
    json!({"failurePolicy": {"maxRetriesPerItem": limit}})
}

/// A TaskSpawner for open issues that polls each second, with further fields of its spec.
pub(crate) fn spawner(name: &str, spec: &Value) -> Value {
    let spawner = json!({
        "apiVersion": KELOS, "kind": "TaskSpawner", "metadata": {"name": name},
        "spec": {"when": {"githubIssues": {"pollInterval": "1s"}}, "taskTemplate": {
            "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"},
            "promptTemplate": "fix {{.Number}}",
        }},
    });
    merged(spawner, &json!({"spec": spec}))
}

/// The TaskSpawner as it is stored.
pub(crate) async fn stored(ns: &Namespace, name: &str) -> anyhow::Result<Value> {
    let found = ns.stored("taskspawners.kelos.dev", name).await?;
    found.with_context(|| format!("TaskSpawner {name} does not exist"))
}

/// Waits until the TaskSpawner is as `condition` says.
pub(crate) async fn await_spawner(
    ns: &Namespace,
    name: &str,
    what: &str,
    condition: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    eventually_that(what, PATIENCE, async || stored(ns, name).await, condition).await
}

/// Waits until the TaskSpawner has had a cycle, so that taskgate has its fields before its first Task is created.
pub(crate) async fn await_cycle(ns: &Namespace, name: &str) -> anyhow::Result<()> {
    let has_run = |spawner: &Value| spawner["status"]["phase"] == "Running";
    await_spawner(ns, name, "has had a cycle", has_run).await.map(drop)
}

/// Removes what is at this JSON pointer of the spawner `fixer`, through its status, as the user ann: the proposal's own command.
pub(crate) async fn remove_from_status(ns: &Namespace, removed: &str) -> anyhow::Result<()> {
    let patch = json!([{"op": "remove", "path": removed}]).to_string();
    let args = [
        "--as",
        "ann",
        "--as-group",
        "system:masters",
        "patch",
        "taskspawner",
        "fixer",
        "--subresource=status",
        "--type=json",
        "-p",
        &patch,
    ];
    ns.kubectl(args).await?.stdout_ok().map(drop)
}

/// The copy in the annotation of a TaskSpawner.
pub(crate) fn copy(spawner: &Value) -> Option<Value> {
    let text = spawner["metadata"]["annotations"][keys::KELOS_FIELDS].as_str()?;
    serde_json::from_str(text).ok()
}

/// Waits for this many further successful cycles of a spawner.
pub(crate) async fn await_cycles(ns: &KelosNamespace, name: &str, more: u64) -> anyhow::Result<()> {
    let count = || ns.standin.cycles(&ns.key(name), kelos_standin::CycleResult::Success);
    let begin = count();
    eventually(format!("{more} cycles of {name}"), PATIENCE, async || {
        let seen = count();
        ensure!(seen >= begin + more, "{} cycles", seen - begin);
        Ok(())
    })
    .await
}

/// Waits for this many further cycles of a spawner, none of which fails.
pub(crate) async fn cycles(ns: &KelosNamespace, name: &str, more: u64) -> anyhow::Result<()> {
    let failed = ns.failed_cycles(name);
    await_cycles(ns, name, more).await?;
    ensure!(
        ns.failed_cycles(name) == failed,
        "{} cycles failed",
        ns.failed_cycles(name) - failed
    );
    Ok(())
}

/// The stored CustomResourceDefinition.
pub(crate) async fn crd(cp: &ControlPlane, name: &str) -> anyhow::Result<Value> {
    let found = cp.kubectl(["get", "crd", name, "-ojson"]).await?.json()?;
    found.get("spec").context("a CRD has a spec")?;
    Ok(found)
}
