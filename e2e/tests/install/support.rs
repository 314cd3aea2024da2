//! What this suite adds to the fixtures: control planes whose API server reaches Services, and what is installed on them.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use kelos_standin::{CRDS, types::Task};
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Crossing, KELOS, Namespace, Pods, merged};

static CROSSING: LazyLock<Crossing> = LazyLock::new(|| Crossing::start().expect("loopback can be listened on"));

/// The namespace of the kustomize base.
pub(crate) const SYSTEM: &str = "taskgate-system";

/// A file of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The connection from API servers to Services.
pub(crate) fn crossing() -> &'static Crossing {
    &CROSSING
}

/// The chart's folder.
pub(crate) fn chart() -> String {
    project("manifests/chart").display().to_string()
}

/// A control plane with Kelos' kinds and without taskgate.
pub(crate) async fn plane() -> anyhow::Result<ControlPlane> {
    ControlPlane::builder().crds(CRDS).crossing(&CROSSING).start().await
}

/// Starts the pods of the Deployment `namespace`/`name`.
pub(crate) async fn pods(cp: &ControlPlane, namespace: &str, name: &str) -> anyhow::Result<Pods> {
    Pods::start(cp, &CROSSING, namespace, name).await
}

/// `kubectl apply -k` of an overlay.
pub(crate) async fn apply_overlay(cp: &ControlPlane, name: &str) -> anyhow::Result<()> {
    let overlay = project("manifests/overlays").join(name).display().to_string();
    // A kind is served a moment after its definition is applied; no object here is of such a kind.
    let apply = ["apply", "--server-side", "-k", &overlay];
    cp.kubectl(apply).await?.stdout_ok().map(drop)
}

/// A namespace with a policy by which the running taskgate decides.
pub(crate) async fn governed(cp: &ControlPlane, hint: &str) -> anyhow::Result<Namespace> {
    let ns = cp.namespace(hint).await?;
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1}, "metadata": {"labels": {"team": "blue"}}});
    ns.apply_policy("agents", &spec).await?;
    await_governed(&ns).await?;
    Ok(ns)
}

/// Waits until Tasks of `ns` are labelled by its policy.
pub(crate) async fn await_governed(ns: &Namespace) -> anyhow::Result<()> {
    ns.await_admission("Tasks are governed", &task("probe", &json!({})), |seen| {
        seen["metadata"]["labels"]["team"] == "blue"
    })
    .await
}

/// A Task that states its item, with further fields of its spec.
pub(crate) fn task(name: &str, spec: &Value) -> Value {
    let task = json!({
        "apiVersion": KELOS, "kind": "Task",
        "metadata": {"name": name, "annotations": {"taskgate.dev/item": name}},
        "spec": {"prompt": "a-secret-prompt", "worker": {"type": "claude-code", "credentials": {"type": "none"}}},
    });
    merged(task, &json!({"spec": spec}))
}

/// Creates a Task, and gives it this status as Kelos does.
pub(crate) async fn task_with_status(ns: &Namespace, name: &str, spec: &Value, status: &Value) -> anyhow::Result<()> {
    ns.created(&task(name, spec)).await?;
    ns.patch_status::<Task>(name, status).await
}

/// All Rust sources below `folder`, without build output.
pub(crate) fn sources(folder: &Path) -> anyhow::Result<String> {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") && !path.ends_with(".cache") {
            all += &sources(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &std::fs::read_to_string(&path)?;
        }
    }
    Ok(all)
}
