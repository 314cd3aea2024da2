//! What this suite adds to the fixtures.

use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Fixture, Gate, GateBuilder, KelosFixture, KelosNamespace, SharedGate, merged};

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));

/// A namespace with Kelos whose Tasks the policy `spec` governs.
pub(crate) async fn governed(hint: &str, spec: Value) -> anyhow::Result<KelosFixture<'static>> {
    governed_on(&SHARED, Gate::builder(), hint, spec).await
}

/// The same beside a taskgate of one's own.
pub(crate) async fn governed_on(
    shared: &'static SharedGate,
    gate: GateBuilder,
    hint: &str,
    spec: Value,
) -> anyhow::Result<KelosFixture<'static>> {
    let Fixture { cp, gate, ns } = shared.fixture(gate, hint, &[]).await?;
    let ns = KelosNamespace::start(ns).await?;
    ns.policy(spec).await?;
    Ok(Fixture { cp, gate, ns })
}

/// A Task in Workspace `repo`, without a spawner.
pub(crate) fn task(name: &str) -> Value {
    in_workspace(taskgate_e2e::task(name))
}

/// The same of this item.
pub(crate) fn task_of_item(name: &str, item: &str) -> Value {
    in_workspace(taskgate_e2e::task_of_item(name, item))
}

fn in_workspace(task: Value) -> Value {
    merged(task, &json!({"spec": {"workspaceRef": {"name": "repo"}}}))
}

/// A policy with this limit of failures in a row.
pub(crate) fn limit(limit: u32) -> Value {
    json!({"failurePolicy": {"maxRetriesPerItem": limit}})
}
