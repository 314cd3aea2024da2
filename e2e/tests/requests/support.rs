//! A fixture of this suite: a namespace without Kelos, whose Tasks the tests end themselves, and the requests about it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use kelos_standin::CRDS;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{AuditEvent, ControlPlane, Fixture, GATE_USER, Gate, Marker, SharedGate};
use tokio::time::sleep;

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));

/// For how long no request may come until an operation counts as complete.
const QUIET: Duration = Duration::from_secs(2);

/// A namespace whose Tasks may fail `limit` times in a row.
pub(crate) async fn governed(hint: &str, limit: u32) -> anyhow::Result<Fixture<'static>> {
    let fixture = SHARED.fixture(Gate::builder(), hint, &[]).await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.policy(policy(limit)).await?;
    requests(&fixture, mark).await?;
    Ok(fixture)
}

pub(crate) fn policy(limit: u32) -> Value {
    json!({"failurePolicy": {"maxRetriesPerItem": limit}})
}

/// Creates `task`, and waits until nothing more happens about it.
pub(crate) async fn created(fixture: &Fixture<'_>, task: &Value) -> anyhow::Result<Value> {
    let mark = fixture.cp.audit().mark()?;
    let task = fixture.created(task).await?;
    requests(fixture, mark).await?;
    Ok(task)
}

/// As Kelos: the Task ends in `phase`, after it ran. Waits until that is recorded.
pub(crate) async fn end(fixture: &Fixture<'_>, task: &str, phase: &str) -> anyhow::Result<()> {
    fixture
        .patch_failed(task, &json!({"phase": phase, "startTime": "2026-01-01T00:00:00Z"}))
        .await?;
    fixture
        .await_task(task, "is recorded", |task| {
            task.annotations().contains_key(keys::RECORDED)
        })
        .await
        .map(drop)
}

/// How often taskgate sent which request about objects of the namespace since `mark`, until no more come.
pub(crate) async fn requests(fixture: &Fixture<'_>, mark: Marker) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut before = usize::MAX;
    loop {
        let events = fixture.cp.audit().since(mark).await?;
        let of_taskgate = events
            .iter()
            .filter(|event| event.user.username == GATE_USER && event.object_ref.namespace == fixture.ns.name());
        let requests = by_kind(of_taskgate);
        let count = requests.values().sum();
        if count == before {
            return Ok(requests);
        }
        before = count;
        sleep(QUIET).await;
    }
}

/// How often there is which request, such as `patch tasks/status`.
pub(crate) fn by_kind<'a>(events: impl Iterator<Item = &'a AuditEvent>) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for event in events {
        let about = &event.object_ref;
        let resource = [about.resource.as_str(), about.subresource.as_str()].join("/");
        let kind = format!("{} {}", event.verb, resource.trim_end_matches('/'));
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Expects at most `most` requests.
pub(crate) fn ensure_at_most(most: usize, requests: &BTreeMap<String, usize>) -> anyhow::Result<()> {
    eprintln!("at most {most}: {requests:?}");
    ensure!(
        requests.values().sum::<usize>() <= most,
        "more than {most}: {requests:?}"
    );
    Ok(())
}
