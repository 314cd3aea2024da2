//! What this suite adds to the fixtures: policies that change nothing but what the test says.

use std::sync::atomic::{AtomicU32, Ordering};

use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Fixture, Gate, Namespace, SharedGate, merged, task};
use tokio::sync::OnceCell;

pub(crate) const MUTATE_TASKS: &str = "mutate.tasks.taskgate.dev";
pub(crate) const VALIDATE_TASKS: &str = "validate.tasks.taskgate.dev";
pub(crate) const MUTATE_JOBS: &str = "mutate.jobs.taskgate.dev";

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));
static MARKERS: OnceCell<Namespace> = OnceCell::const_new();

/// A namespace without any policy.
pub(crate) async fn start(hint: &str) -> anyhow::Result<Fixture<'static>> {
    labelled(hint, &[]).await
}

/// The same with labels.
pub(crate) async fn labelled(hint: &str, labels: &[(&str, &str)]) -> anyhow::Result<Fixture<'static>> {
    SHARED.fixture(Gate::builder(), hint, labels).await
}

/// A namespace that a policy with this spec governs.
pub(crate) async fn governed(hint: &str, spec: Value) -> anyhow::Result<Fixture<'static>> {
    let fixture = start(hint).await?;
    apply_policy(&fixture, "agents", spec).await?;
    Ok(fixture)
}

/// Applies a policy as it is, and waits until it is accepted and admission decides by it.
pub(crate) async fn apply_policy(fixture: &Fixture<'_>, name: &str, spec: Value) -> anyhow::Result<()> {
    fixture.apply_policy(name, &spec).await?;
    fixture.await_policy_accepted(name).await?;
    await_policies(fixture).await
}

/// Waits until admission has every TaskPolicy that was written before: it sees them in order, through one watch, and a policy
/// of another namespace is the last.
pub(crate) async fn await_policies(fixture: &Fixture<'_>) -> anyhow::Result<()> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let markers = MARKERS.get_or_try_init(|| fixture.cp.namespace("markers")).await?;
    let name = format!("marker-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let label = json!({"marker": name});
    let probe = merged(task("probe"), &json!({"metadata": {"labels": label}}));
    let spec = json!({"selector": {"taskSelector": {"matchLabels": label}}});
    markers.policy_for(&probe, &name, spec).await?;
    let delete = ["delete", "taskpolicy", &name];
    markers.kubectl(delete).await?.stdout_ok().map(drop)
}
