//! A control plane with a taskgate that is fail-closed, and a namespace that is governed.

use anyhow::ensure;
use kelos_standin::{CRDS, types::Task};
use kube::{Api, ResourceExt as _, api::PostParams};
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{ControlPlane, Gate, Namespace, PATIENCE, eventually};
use tokio::process::Command;

pub(crate) const CONFIGURATION: &str = "admission.taskgate.dev";
pub(crate) const KINDS: [&str; 2] = ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"];

pub(crate) struct World {
    pub(crate) cp: ControlPlane,
    pub(crate) gate: Gate,
    pub(crate) ns: Namespace,
}

impl World {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let cp = ControlPlane::builder().crds(CRDS).start().await?;
        let gate = Gate::builder()
            .registration_flag("--failure-policy=fail")
            .serve_flag("--no-leader-election")
            .start(&cp)
            .await?;
        let ns = cp.namespace("incident").await?;
        let policy = json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"},
            "spec": {"failurePolicy": {"maxRetriesPerItem": 3}},
        });
        ns.apply_yaml(&policy.to_string()).await?;
        let world = Self { cp, gate, ns };
        world.until_governed(true).await?;
        Ok(world)
    }

    /// What `taskgate ARGS` prints, if it succeeds.
    pub(crate) async fn taskgate(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(taskgate_e2e::binary("taskgate")?)
            .args(args)
            .arg("--kubeconfig")
            .arg(self.cp.kubeconfig())
            .output()
            .await?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "taskgate {args:?}: {told}");
        Ok(String::from_utf8(output.stdout)?)
    }

    pub(crate) fn tasks(&self) -> Api<Task> {
        self.ns.api()
    }

    pub(crate) fn task(name: &str) -> anyhow::Result<Task> {
        Ok(serde_json::from_value(json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
            "metadata": {"name": name, "annotations": {keys::ITEM: name}},
            "spec": {"type": "claude-code", "prompt": "fix", "credentials": {"type": "none"}},
        }))?)
    }

    /// Waits until creates are governed, or pass as they are. Whoever refuses them does neither.
    pub(crate) async fn until_governed(&self, governed: bool) -> anyhow::Result<()> {
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let task = Self::task("probe")?;
        eventually(format!("creates are governed: {governed}"), PATIENCE, || async {
            let seen = self.tasks().create(&params, &task).await?;
            let is = seen.labels().contains_key(keys::WORK_ITEM);
            ensure!(is == governed, "{:?}", seen.metadata.labels);
            Ok(())
        })
        .await
    }

    /// Both configurations, but for what every write changes.
    pub(crate) async fn configurations(&self) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        for kind in KINDS {
            let args = ["get", kind, CONFIGURATION, "-ojson", "--show-managed-fields"];
            let mut object: Value = serde_json::from_str(&self.cp.kubectl(args).await?.stdout_ok()?)?;
            object["metadata"]["resourceVersion"] = Value::Null;
            object["metadata"]["generation"] = Value::Null;
            for entry in object["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
                entry["time"] = Value::Null;
            }
            found.push(object);
        }
        Ok(found)
    }
}
