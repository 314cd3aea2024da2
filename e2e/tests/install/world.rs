//! A control plane whose API server reaches Services, and what is installed on it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context as _, ensure};
use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Crossing, Namespace, Output, PATIENCE, Pods, eventually};

static CROSSING: LazyLock<Crossing> = LazyLock::new(|| Crossing::start().expect("loopback can be listened on"));

/// The namespace of the kustomize base.
pub(crate) const SYSTEM: &str = "taskgate-system";

/// A file of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The way from the API server to Services.
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

/// Starts what the Deployment `namespace`/`name` describes.
pub(crate) async fn pods(cp: &ControlPlane, namespace: &str, name: &str) -> anyhow::Result<Pods> {
    Pods::start(cp, &CROSSING, namespace, name).await
}

/// `kubectl apply -k` of an overlay.
pub(crate) async fn apply_overlay(cp: &ControlPlane, name: &str) -> anyhow::Result<()> {
    let overlay = project("manifests/overlays").join(name).display().to_string();
    // A kind is served a moment after its definition is applied; nothing here is of such a kind.
    cp.kubectl(["apply", "--server-side", "-k", &overlay])
        .await?
        .stdout_ok()
        .map(drop)
}

/// A namespace with a policy that the running taskgate decides by.
pub(crate) async fn governed(cp: &ControlPlane, hint: &str) -> anyhow::Result<Namespace> {
    let ns = cp.namespace(hint).await?;
    ns.apply_yaml(
        &json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"},
            "spec": {"failurePolicy": {"maxRetriesPerItem": 1}, "metadata": {"labels": {"team": "blue"}}},
        })
        .to_string(),
    )
    .await?;
    governs(&ns).await?;
    Ok(ns)
}

/// Waits until Tasks of `ns` are labelled by its policy.
pub(crate) async fn governs(ns: &Namespace) -> anyhow::Result<()> {
    eventually("Tasks are governed", PATIENCE, || async {
        let told = create(ns, &task("probe", &json!({})), &["--dry-run=server", "-ojson"]).await?;
        let seen: Value = serde_json::from_str(&told.stdout_ok()?)?;
        ensure!(seen["metadata"]["labels"]["team"] == "blue", "{}", seen["metadata"]);
        Ok(())
    })
    .await
}

/// A Task that states its item.
pub(crate) fn task(name: &str, spec: &Value) -> Value {
    let mut task = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
        "metadata": {"name": name, "annotations": {"taskgate.dev/item": name}},
        "spec": {"prompt": "a-secret-prompt", "worker": {"type": "claude-code", "credentials": {"type": "none"}}},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        task["spec"][key] = value.clone();
    }
    task
}

/// `kubectl create`.
pub(crate) async fn create(ns: &Namespace, object: &Value, flags: &[&str]) -> anyhow::Result<Output> {
    let args = ["create", "-f-"].iter().chain(flags);
    ns.kubectl_with_input(args, &object.to_string()).await
}

/// Creates a Task and gives it this status, as Kelos would.
pub(crate) async fn task_with_status(ns: &Namespace, name: &str, spec: &Value, status: &Value) -> anyhow::Result<()> {
    create(ns, &task(name, spec), &[]).await?.stdout_ok()?;
    let patch = json!({"status": status}).to_string();
    let args = [
        "patch",
        "task.kelos.dev",
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    ns.kubectl(args).await?.stdout_ok().map(drop)
}

/// A Task as it is stored; `None` if it is gone.
pub(crate) async fn stored(ns: &Namespace, name: &str) -> anyhow::Result<Option<Value>> {
    let found = ns
        .kubectl(["get", "task.kelos.dev", name, "--ignore-not-found", "-ojson"])
        .await?
        .stdout_ok()?;
    if found.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&found).context("kubectl printed no JSON")?))
}

/// Every document of a rendered installation.
pub(crate) fn documents(rendered: &str) -> anyhow::Result<Vec<Value>> {
    let parts = rendered.split("\n---").map(|part| part.trim_start_matches("---"));
    let parts = parts.filter(|part| {
        part.lines()
            .any(|line| !line.trim().is_empty() && !line.starts_with('#'))
    });
    parts
        .map(|part| serde_saphyr::from_str(part).with_context(|| part.to_owned()))
        .collect()
}

/// All Rust sources below `folder`, but for what is built.
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
