//! A fixture of this suite: a taskgate of its own that is fail-closed, and a governed namespace.

use kelos_standin::{CRDS, types::Task};
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{ControlPlane, Gate, Namespace, task_of_item};

pub(crate) const CONFIGURATION: &str = "admission.taskgate.dev";
pub(crate) const KINDS: [&str; 2] = ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"];

pub(crate) struct DisableFixture {
    pub(crate) cp: ControlPlane,
    pub(crate) gate: Gate,
    pub(crate) ns: Namespace,
}

impl DisableFixture {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let cp = ControlPlane::builder().crds(CRDS).start().await?;
        let gate = Gate::builder()
            .registration_flag("--failure-policy=fail")
            .without_leader_election()
            .start(&cp)
            .await?;
        let ns = cp.namespace("incident").await?;
        ns.policy(json!({"failurePolicy": {"maxRetriesPerItem": 3}})).await?;
        Ok(Self { cp, gate, ns })
    }

    /// What `taskgate ARGS` prints, if it succeeds.
    pub(crate) async fn taskgate(&self, args: &[&str]) -> anyhow::Result<String> {
        self.cp.taskgate(self.cp.kubeconfig(), args).await?.stdout_ok()
    }

    /// Waits until creates are governed, or pass unchanged; a create that is refused is neither.
    pub(crate) async fn await_governed(&self, governed: bool) -> anyhow::Result<()> {
        let what = format!("creates are governed: {governed}");
        self.ns
            .await_admission(&what, &task_of_item("probe", "probe"), |seen| {
                seen["metadata"]["labels"][keys::WORK_ITEM].is_null() != governed
            })
            .await
    }

    /// Both configurations, without what every write changes.
    pub(crate) async fn configurations(&self) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        for kind in KINDS {
            let args = ["get", kind, CONFIGURATION, "-ojson", "--show-managed-fields"];
            let mut object = self.cp.kubectl(args).await?.json()?;
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

/// A Task whose item has its name.
pub(crate) fn task(name: &str) -> anyhow::Result<Task> {
    Ok(serde_json::from_value(task_of_item(name, name))?)
}
