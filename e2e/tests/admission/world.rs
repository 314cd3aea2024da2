//! One control plane with one taskgate for all tests of the suite, and a namespace for each.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};
use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_api::TaskPolicy;
use taskgate_e2e::{ControlPlane, Gate, Namespace, Output, PATIENCE, Shared, await_object, eventually};
use tokio::sync::OnceCell;

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));
static GATE: OnceCell<Gate> = OnceCell::const_new();
static MARKERS: OnceCell<Namespace> = OnceCell::const_new();

pub(crate) const MUTATE_TASKS: &str = "mutate.tasks.taskgate.dev";
pub(crate) const VALIDATE_TASKS: &str = "validate.tasks.taskgate.dev";
pub(crate) const MUTATE_JOBS: &str = "mutate.jobs.taskgate.dev";

pub(crate) struct World {
    pub(crate) cp: &'static ControlPlane,
    pub(crate) gate: &'static Gate,
    pub(crate) ns: Namespace,
}

impl World {
    /// A fresh namespace without any policy.
    pub(crate) async fn start(hint: &str) -> anyhow::Result<Self> {
        Self::labelled(hint, &[]).await
    }

    /// The same, with labels.
    pub(crate) async fn labelled(hint: &str, labels: &[(&str, &str)]) -> anyhow::Result<Self> {
        let cp = PLANE.get().await?;
        let gate = GATE.get_or_try_init(|| Gate::start(cp)).await?;
        let ns = cp.namespace_with_labels(hint, labels).await?;
        Ok(Self { cp, gate, ns })
    }

    /// A fresh namespace governed by a policy with this spec.
    pub(crate) async fn governed(hint: &str, spec: Value) -> anyhow::Result<Self> {
        let world = Self::start(hint).await?;
        world.policy("agents", spec).await?;
        Ok(world)
    }

    /// Writes a policy and waits until taskgate decides by it.
    pub(crate) async fn policy(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        write_policy(&self.ns, name, &spec).await?;
        await_object(&self.ns.api::<TaskPolicy>(), name, "accepted as it is now", |policy| {
            policy.status.as_ref().is_some_and(|status| {
                status.observed_generation == policy.metadata.generation && status.conditions[0].status == "True"
            })
        })
        .await?;
        self.until_policies_are_seen().await
    }

    /// Waits until taskgate has seen every change of TaskPolicies up to now. It sees them in order, through one watch: once
    /// it decides by a policy that was written last, it knows the ones before.
    pub(crate) async fn until_policies_are_seen(&self) -> anyhow::Result<()> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let markers = MARKERS.get_or_try_init(|| self.cp.namespace("markers")).await?;
        let name = format!("marker-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let spec = json!({
            "selector": {"taskSelector": {"matchLabels": {"marker": name}}},
            "metadata": {"annotations": {"seen": "yes"}},
        });
        write_policy(markers, &name, &spec).await?;
        let mut probe = task("probe");
        probe["metadata"]["labels"] = json!({"marker": name});
        eventually("taskgate has seen the policy", PATIENCE, || async {
            let seen = dry_run(markers, &probe).await?;
            ensure!(seen["metadata"]["annotations"]["seen"] == "yes", "{seen}");
            Ok(())
        })
        .await?;
        markers
            .kubectl(["delete", "taskpolicy", &name])
            .await?
            .stdout_ok()
            .map(drop)
    }

    /// `kubectl create` of one object.
    pub(crate) async fn create(&self, object: &Value) -> anyhow::Result<Output> {
        create(&self.ns, object, &[]).await
    }

    /// What a dry run of its creation gives.
    pub(crate) async fn dry_run(&self, object: &Value) -> anyhow::Result<Value> {
        dry_run(&self.ns, object).await
    }

    /// Creates `object` and returns it as it is stored.
    pub(crate) async fn created(&self, object: &Value) -> anyhow::Result<Value> {
        let output = create(&self.ns, object, &["-ojson"]).await?.stdout_ok()?;
        serde_json::from_str(&output).context("kubectl printed no JSON")
    }

    /// A Job as Kelos makes it for `owner`, a Task that is stored.
    pub(crate) fn job_of(owner: &Value) -> Value {
        let name = owner["metadata"]["name"].as_str().unwrap_or_default();
        let mut job = job(name);
        job["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "name": name, "uid": owner["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        }]);
        job
    }
}

pub(crate) async fn write_policy(ns: &Namespace, name: &str, spec: &Value) -> anyhow::Result<()> {
    let policy =
        json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": name}, "spec": spec});
    ns.apply_yaml(&policy.to_string()).await
}

pub(crate) async fn create(ns: &Namespace, object: &Value, flags: &[&str]) -> anyhow::Result<Output> {
    let args = ["create", "-f-"].iter().chain(flags);
    ns.kubectl_with_input(args, &object.to_string()).await
}

async fn dry_run(ns: &Namespace, object: &Value) -> anyhow::Result<Value> {
    let output = create(ns, object, &["--dry-run=server", "-ojson"]).await?.stdout_ok()?;
    serde_json::from_str(&output).context("kubectl printed no JSON")
}

/// A Task that Kelos would run.
pub(crate) fn task(name: &str) -> Value {
    json!({
        "apiVersion": "kelos.dev/v1alpha2",
        "kind": "Task",
        "metadata": {"name": name},
        "spec": {
            "type": "claude-code",
            "prompt": "Do what has to be done",
            "credentials": {"type": "api-key", "secretRef": {"name": "anthropic"}},
        },
    })
}

/// A Job with Kelos' labels that belongs to nobody.
pub(crate) fn job(name: &str) -> Value {
    let labels = json!({
        "kelos.dev/name": "kelos", "kelos.dev/component": "task", "kelos.dev/managed-by": "kelos-controller",
        "kelos.dev/task": name,
    });
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {"backoffLimit": 1, "template": {
            "metadata": {"labels": labels},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "kelos-agent", "image": "agent"}]},
        }},
    })
}
