//! One control plane with one taskgate for all tests of the suite, and a namespace with a Workspace and a spawner for each.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use kelos_standin::{CRDS, SharedGitHub};
use serde_json::{Value, json};
use taskgate_api::TaskPolicy;
use taskgate_e2e::{ControlPlane, Gate, Namespace, Output, PATIENCE, Shared, await_object, eventually};
use tokio::sync::OnceCell;

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));
static GATE: OnceCell<Gate> = OnceCell::const_new();
pub(crate) static GITHUB: SharedGitHub = SharedGitHub::new();

/// A taskgate that leads at once, and asks the shared GitHub as often as spawners poll.
pub(crate) async fn gate(cp: &ControlPlane) -> anyhow::Result<Gate> {
    Gate::builder()
        .serve_flag("--no-leader-election")
        .asking(GITHUB.get().await?.url())
        .start(cp)
        .await
}

pub(crate) struct World {
    pub(crate) cp: &'static ControlPlane,
    pub(crate) gate: &'static Gate,
    pub(crate) ns: Namespace,
}

impl World {
    /// A namespace with Workspace `shop` and TaskSpawner `fixer` of team blue, without a policy.
    pub(crate) async fn start(hint: &str) -> anyhow::Result<Self> {
        let cp = PLANE.get().await?;
        let gate = GATE.get_or_try_init(|| gate(cp)).await?;
        Self::on(cp, gate, hint).await
    }

    pub(crate) async fn on(cp: &'static ControlPlane, gate: &'static Gate, hint: &str) -> anyhow::Result<Self> {
        let ns = cp.namespace_with_labels(hint, &[("cost-center", "4711")]).await?;
        for object in [
            json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "shop"},
                "spec": {"repo": "https://github.com/acme/shop.git", "ref": "main"}}),
            json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner",
                "metadata": {"name": "fixer", "labels": {"team": "blue"}},
                "spec": {"when": {"githubIssues": {}}, "suspend": true, "taskTemplate": {
                    "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "shop"}}}}),
        ] {
            ns.apply_yaml(&object.to_string()).await?;
        }
        Ok(Self { cp, gate, ns })
    }

    /// The same, with a policy whose metadata section is `section`.
    pub(crate) async fn governed(hint: &str, section: Value) -> anyhow::Result<Self> {
        let world = Self::start(hint).await?;
        world.policy("agents", json!({"metadata": section})).await?;
        Ok(world)
    }

    /// Writes a policy and waits until taskgate decides by it.
    pub(crate) async fn policy(&self, name: &str, mut spec: Value) -> anyhow::Result<()> {
        let mark = format!("seen-{}", rand::random::<u32>());
        let marked = spec["metadata"]["mode"].is_null() && spec["mode"].is_null();
        if marked {
            spec["metadata"]["annotations"][&mark] = json!("yes");
        }
        self.write_policy(name, &spec).await?.stdout_ok()?;
        await_object(&self.ns.api::<TaskPolicy>(), name, "accepted as it is now", |policy| {
            policy.status.as_ref().is_some_and(|status| {
                status.observed_generation == policy.metadata.generation && status.conditions[0].status == "True"
            })
        })
        .await?;
        if marked {
            eventually("taskgate has seen the policy", PATIENCE, || async {
                let probe = self.dry_run(&task("probe")).await?;
                ensure!(probe["metadata"]["annotations"][&mark] == "yes", "{probe}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Writes a policy, right or wrong.
    pub(crate) async fn write_policy(&self, name: &str, spec: &Value) -> anyhow::Result<Output> {
        let policy = json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": name}, "spec": spec});
        self.ns.kubectl_with_input(["apply", "-f-"], &policy.to_string()).await
    }

    /// What a dry run of the creation of `object` gives.
    pub(crate) async fn dry_run(&self, object: &Value) -> anyhow::Result<Value> {
        let flags = ["create", "-f-", "--dry-run=server", "-ojson"];
        let output = self
            .ns
            .kubectl_with_input(flags, &object.to_string())
            .await?
            .stdout_ok()?;
        serde_json::from_str(&output).context("kubectl printed no JSON")
    }

    /// Creates `object`; what is stored, and the warnings.
    pub(crate) async fn create(&self, object: &Value) -> anyhow::Result<(Value, Vec<String>)> {
        let output = self
            .ns
            .kubectl_with_input(["create", "-f-", "-ojson"], &object.to_string())
            .await?;
        let warnings = output.warnings().iter().map(ToString::to_string).collect();
        let stored = serde_json::from_str(&output.stdout_ok()?).context("kubectl printed no JSON")?;
        Ok((stored, warnings))
    }

    /// The names of the Tasks that a label selector finds.
    pub(crate) async fn found(&self, selector: &str) -> anyhow::Result<String> {
        let found = self
            .ns
            .kubectl(["get", "tasks.kelos.dev", "-l", selector, "-oname"])
            .await?;
        Ok(found.stdout_ok()?.trim().to_owned())
    }

    /// The Job as Kelos makes it for `owner`, a Task that is stored.
    pub(crate) fn job_of(owner: &Value) -> Value {
        let name = owner["metadata"]["name"].as_str().unwrap_or_default();
        let labels = json!({"kelos.dev/task": name, "kelos.dev/name": "kelos"});
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name, "labels": labels, "ownerReferences": [{
                "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "name": name, "uid": owner["metadata"]["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }]},
            "spec": {"backoffLimit": 1, "template": {"metadata": {"labels": labels}, "spec": {
                "restartPolicy": "Never", "containers": [{"name": "kelos-agent", "image": "agent"}],
            }}},
        })
    }

    /// The path of a file with `object` in it.
    pub(crate) fn file(&self, name: &str, object: &Value) -> anyhow::Result<PathBuf> {
        let path = self.cp.dir().join(format!("{}-{name}", self.ns.name()));
        std::fs::write(&path, object.to_string())?;
        Ok(path)
    }
}

/// A Task as the spawner `fixer` makes it for issue 42.
pub(crate) fn task(name: &str) -> Value {
    json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
        "metadata": {
            "name": name, "labels": {"kelos.dev/taskspawner": "fixer"},
            "annotations": {"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"},
        },
        "spec": {
            "type": "claude-code", "prompt": "Fix it. The password is hunter2.", "model": "opus",
            "credentials": {"type": "none"}, "workspaceRef": {"name": "shop"},
        },
    })
}

pub(crate) fn labels(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

pub(crate) fn annotations(object: &Value) -> &Value {
    &object["metadata"]["annotations"]
}
