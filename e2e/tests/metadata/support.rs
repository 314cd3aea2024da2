//! What this suite adds to the fixtures: Workspace `shop` and TaskSpawner `fixer` of team blue, without Kelos.

use std::path::PathBuf;

use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_e2e::{
    ControlPlane, Fixture, Gate, GateBuilder, KELOS, Namespace, Output, SharedGate, github, merged, policy,
};

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));

/// A taskgate that leads at once, and asks the shared GitHub as often as spawners poll.
pub(crate) async fn gate() -> anyhow::Result<GateBuilder> {
    Ok(Gate::builder().without_leader_election().asking(github().await?.url()))
}

/// A namespace with Workspace and TaskSpawner, without a policy.
pub(crate) async fn start(hint: &str) -> anyhow::Result<Fixture<'static>> {
    start_on(&SHARED, hint).await
}

/// The same on another control plane.
pub(crate) async fn start_on(shared: &'static SharedGate, hint: &str) -> anyhow::Result<Fixture<'static>> {
    let fixture = shared.fixture(gate().await?, hint, &[("cost-center", "4711")]).await?;
    let workspace = json!({"apiVersion": KELOS, "kind": "Workspace", "metadata": {"name": "shop"},
        "spec": {"repo": "https://github.com/acme/shop.git", "ref": "main"}});
    let spawner = json!({"apiVersion": KELOS, "kind": "TaskSpawner",
        "metadata": {"name": "fixer", "labels": {"team": "blue"}},
        "spec": {"when": {"githubIssues": {}}, "suspend": true, "taskTemplate": {
            "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "shop"}}}});
    fixture.apply_yaml(&format!("{workspace}\n---\n{spawner}")).await?;
    Ok(fixture)
}

/// The same as [`start`] with a policy whose metadata section is `section`.
pub(crate) async fn governed(hint: &str, section: Value) -> anyhow::Result<Fixture<'static>> {
    let fixture = start(hint).await?;
    apply_policy(&fixture, "agents", json!({"metadata": section})).await?;
    Ok(fixture)
}

/// Applies a policy, and waits until it is accepted and admission decides by it.
pub(crate) async fn apply_policy(ns: &Namespace, name: &str, spec: Value) -> anyhow::Result<()> {
    ns.policy_for(&task("probe"), name, spec).await?;
    ns.await_policy_accepted(name).await
}

/// `kubectl apply` of a policy, right or wrong.
pub(crate) async fn try_policy(ns: &Namespace, spec: &Value) -> anyhow::Result<Output> {
    ns.kubectl_with_input(["apply", "-f-"], &policy("agents", spec).to_string())
        .await
}

/// Creates `object`; it as it is stored, and the warnings.
pub(crate) async fn created_with_warnings(ns: &Namespace, object: &Value) -> anyhow::Result<(Value, Vec<String>)> {
    let output = ns.create(object).await?;
    let warnings = output.warnings().iter().map(ToString::to_string).collect();
    Ok((output.json()?, warnings))
}

/// The names of the Tasks that a label selector selects.
pub(crate) async fn selected(ns: &Namespace, selector: &str) -> anyhow::Result<String> {
    let selected = ns.kubectl(["get", "tasks.kelos.dev", "-l", selector, "-oname"]).await?;
    Ok(selected.stdout_ok()?.trim().to_owned())
}

/// The path of a file with `object` in it.
pub(crate) fn file(fixture: &Fixture<'_>, name: &str, object: &Value) -> anyhow::Result<PathBuf> {
    let path = fixture.cp.dir().join(format!("{}-{name}", fixture.ns));
    std::fs::write(&path, object.to_string())?;
    Ok(path)
}

/// A Task as the spawner `fixer` creates it for issue 42.
pub(crate) fn task(name: &str) -> Value {
    let more = json!({
        "metadata": {
            "labels": {"kelos.dev/taskspawner": "fixer"},
            "annotations": {"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"},
        },
        "spec": {"prompt": "Fix it. The password is hunter2.", "model": "opus", "workspaceRef": {"name": "shop"}},
    });
    merged(taskgate_e2e::task(name), &more)
}

pub(crate) fn labels(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

pub(crate) fn annotations(object: &Value) -> &Value {
    &object["metadata"]["annotations"]
}
