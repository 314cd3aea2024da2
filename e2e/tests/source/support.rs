//! What this suite adds to the fixtures: item 42 of spawner `fixer`, which one failure trips and a change resets.

use anyhow::{Context as _, ensure};
use kelos_standin::{CRDS, GitHub, Issue, Outcome, SharedGitHub};
use serde_json::{Value, json};
use taskgate_api::work_item::Breaker;
use taskgate_e2e::{
    ControlPlane, Fixture, Gate, GateBuilder, KelosFixture, KelosNamespace, PATIENCE, SharedGate, breaker, eventually,
    github,
};

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));
/// Stands for the proxies of Workspaces, which get no token.
static PROXY: SharedGitHub = SharedGitHub::new();

/// A taskgate that asks the shared GitHub each second.
pub(crate) async fn gate() -> anyhow::Result<GateBuilder> {
    let proxy = format!("--ghproxy-url={}", proxy().await?.url());
    let gate = Gate::builder().without_leader_election().serve_flag(proxy);
    Ok(gate.asking(github().await?.url()))
}

pub(crate) async fn proxy() -> anyhow::Result<&'static GitHub> {
    Ok(PROXY.get().await?)
}

/// A namespace with Kelos and that policy.
pub(crate) async fn start(hint: &str) -> anyhow::Result<KelosFixture<'static>> {
    start_with(hint, json!({})).await
}

/// The same with further fields of the Workspace.
pub(crate) async fn start_with(hint: &str, workspace: Value) -> anyhow::Result<KelosFixture<'static>> {
    let (cp, gate) = SHARED.get(gate().await?).await?;
    start_on(cp, gate, hint, workspace).await
}

/// The same on another control plane.
pub(crate) async fn start_on<'a>(
    cp: &'a ControlPlane,
    gate: &'a Gate,
    hint: &str,
    workspace: Value,
) -> anyhow::Result<KelosFixture<'a>> {
    let ns = cp.namespace(hint).await?;
    let ns = KelosNamespace::builder().workspace(workspace).start(ns).await?;
    ns.policy(json!({"failurePolicy": {"maxRetriesPerItem": 1, "resetOnChange": true}}))
        .await?;
    Ok(Fixture { cp, gate, ns })
}

/// Fails the Task of item 42, and waits until the item is tripped. Returns the Task's UID.
pub(crate) async fn trip(ns: &KelosNamespace) -> anyhow::Result<String> {
    let uid = ns.end_recorded("fixer-42", Outcome::failed_at_once()).await?;
    ns.await_open("42").await?;
    Ok(uid)
}

/// Issue 42, tripped, with a baseline. Returns it with the Task's UID.
pub(crate) async fn tripped(ns: &KelosNamespace) -> anyhow::Result<(Issue, String)> {
    let issue = ns.repo().issue(42);
    ns.issue_spawner("fixer", None).await?;
    let uid = trip(ns).await?;
    await_baseline(ns).await?;
    Ok((issue, uid))
}

/// The hash of item 42's content, once it is tripped and taskgate has read the content.
pub(crate) async fn await_baseline(ns: &KelosNamespace) -> anyhow::Result<String> {
    let item = ns
        .await_work_item("42", "has a baseline", |item| {
            let hash = item.status.as_ref().and_then(|status| status.content_hash.as_ref());
            breaker(item) == Some(Breaker::Open) && hash.is_some()
        })
        .await?;
    Ok(item.status.and_then(|status| status.content_hash).unwrap_or_default())
}

/// Waits until taskgate was answered about `part` of the repository after the first `before` requests.
pub(crate) async fn await_request(ns: &KelosNamespace, part: &str, before: usize) -> anyhow::Result<()> {
    eventually(format!("taskgate requests {part}"), PATIENCE, || async {
        let requests = ns.taskgate_requests();
        let is_it = |seen: &kelos_standin::Seen| seen.path.ends_with(part) && seen.status == 200;
        ensure!(requests[before..].iter().any(is_it), "{requests:?}");
        Ok(())
    })
    .await
}

/// The message of the policy's condition SourceReadable, once it has this reason.
pub(crate) async fn await_source_readable(ns: &KelosNamespace, reason: &str) -> anyhow::Result<String> {
    eventually(format!("SourceReadable is {reason}"), 2 * PATIENCE, || async {
        let status = ns.policies().get("agents").await?.status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        let found = conditions.find(|condition| condition.type_ == "SourceReadable");
        let found = found.with_context(|| format!("{status:?}"))?;
        ensure!(found.reason == reason, "{found:?}");
        ensure!((found.status == "True") == (reason == "Answered"), "{found:?}");
        Ok(found.message.clone())
    })
    .await
}
