//! What this suite adds to the fixtures: Kueue, and Tasks that request a CPU.

use std::time::Duration;

use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_e2e::{
    ControlPlane, Fixture, Gate, KelosFixture, KelosNamespace, Kueue, KueueBuilder, Namespace, SharedGate, job_of,
    merged,
};
use tokio::sync::OnceCell;

pub(crate) const MUTATE_JOBS: &str = "mutate.jobs.taskgate.dev";
/// Label of namespaces that this Kueue does not manage.
pub(crate) const UNMANAGED: &str = "unmanaged";
/// Long enough for anything that might happen by mistake.
pub(crate) const A_WHILE: Duration = Duration::from_secs(3);

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));
static KUEUE: OnceCell<Kueue> = OnceCell::const_new();

/// The shared control plane, with Kueue and taskgate.
pub(crate) async fn shared() -> anyhow::Result<(&'static ControlPlane, &'static Gate)> {
    let cp = SHARED.plane().await?;
    KUEUE.get_or_try_init(|| kueue().start(cp)).await?;
    // Without a Lease, so that it writes nothing while idle.
    SHARED.get(Gate::builder().without_leader_election()).await
}

/// Kueue as this suite configures it.
pub(crate) fn kueue() -> KueueBuilder {
    let managed = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "kueue-system"]},
        {"key": UNMANAGED, "operator": "DoesNotExist"},
    ]});
    Kueue::builder().set("managedJobsNamespaceSelector", managed)
}

/// A namespace with Kelos whose Tasks the policy `spec` governs.
pub(crate) async fn governed(hint: &str, spec: Value) -> anyhow::Result<KelosFixture<'static>> {
    labelled(hint, &[], spec).await
}

/// The same with labels of the namespace.
pub(crate) async fn labelled(
    hint: &str,
    labels: &[(&str, &str)],
    spec: Value,
) -> anyhow::Result<KelosFixture<'static>> {
    let (cp, gate) = shared().await?;
    let ns = cp.namespace_with_labels(hint, labels).await?;
    let ns = KelosNamespace::start(ns).await?;
    ns.policy(spec).await?;
    Ok(Fixture { cp, gate, ns })
}

/// Waits until admission has every policy that was written before: it sees them in order, and one more is the last.
pub(crate) async fn await_policies(ns: &Namespace) -> anyhow::Result<()> {
    ns.policy_for(&task("probe"), "marker", json!({})).await?;
    ns.kubectl(["delete", "taskpolicy", "marker"])
        .await?
        .stdout_ok()
        .map(drop)
}

/// A Task that requests one CPU.
pub(crate) fn task(name: &str) -> Value {
    let resources = json!({"spec": {"podOverrides": {"resources": {"requests": {"cpu": "1"}}}}});
    merged(taskgate_e2e::task(name), &resources)
}

/// Applies a Task that requests one CPU.
pub(crate) async fn apply_task(ns: &Namespace, name: &str) -> anyhow::Result<()> {
    ns.apply_yaml(&task(name).to_string()).await
}

/// The Job that Kelos would make for a Task, which is created here. Kelos does not make it, as the Task is for a Workspace that
/// does not exist.
pub(crate) async fn job_for_new_task(ns: &Namespace, name: &str) -> anyhow::Result<Value> {
    let missing = json!({"spec": {"workspaceRef": {"name": "missing"}}});
    Ok(job_of(&ns.created(&merged(task(name), &missing)).await?))
}
