//! What this suite adds to the fixtures: Foreman without taskgate.

use foreman_standin::types::{AgenticTask, Workload};
use foreman_standin::{CRDS, Options, keys};
use kube::api::ListParams;
use serde_json::{Value, json};
use taskgate_e2e::{CODER, ControlPlane, ForemanNamespace, Namespace, PATIENCE, Shared, eventually};

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));

/// The issues shortcut with all three roles.
pub(crate) const ISSUE: &str = "issues: [7], repo: acme/app, coderAgentRef: {name: coder}, \
    verifierAgentRef: {name: gate}, reviewerAgentRefs: [{name: reviewer}]";

pub(crate) async fn start(hint: &str) -> anyhow::Result<ForemanNamespace> {
    start_with(hint, |_| {}).await
}

pub(crate) async fn start_with(hint: &str, change: impl FnOnce(&mut Options)) -> anyhow::Result<ForemanNamespace> {
    let ns = PLANE.get().await?.namespace(hint).await?;
    let change = |mut options| {
        change(&mut options);
        options
    };
    ForemanNamespace::start(ns, change).await
}

/// The children of a Workload, by their label.
pub(crate) async fn children(ns: &Namespace, workload: &str) -> anyhow::Result<Vec<AgenticTask>> {
    let own = ListParams::default().labels(&format!("{}={workload}", keys::WORKLOAD));
    Ok(ns.agentic_tasks().list(&own).await?.items)
}

/// A Workload of one child that has failed.
pub(crate) async fn failed(fixture: &ForemanNamespace, name: &str) -> anyhow::Result<Workload> {
    fixture.workload(name, CODER).await?;
    fixture.fail(name).await?;
    fixture.await_workload_phase(name, "Failed").await
}

/// Waits until the Workload has run so often.
pub(crate) async fn await_runs(fixture: &ForemanNamespace, name: &str, runs: usize) -> anyhow::Result<()> {
    eventually(format!("{runs} runs of {name}"), PATIENCE, async || {
        let seen = fixture.runs(name);
        anyhow::ensure!(seen == runs, "{seen} runs");
        Ok(())
    })
    .await
}

pub(crate) fn names(tasks: &[AgenticTask]) -> Vec<String> {
    tasks.iter().map(kube::ResourceExt::name_any).collect()
}

/// A condition's status and reason.
pub(crate) fn status_and_reason<'a>(workload: &'a Workload, condition: &str) -> Option<(&'a str, &'a str)> {
    let (status, reason, _) = workload.condition(condition)?;
    Some((status, reason))
}

/// One finding of a reviewer.
pub(crate) fn finding(message: &str) -> Value {
    json!({"severity": "major", "area": "tests", "message": message, "file": "src/a.rs", "line": 3})
}
