//! How the caches are filled: from a streamed list, and from pages where the API server does not stream lists.

use anyhow::ensure;
use kelos_standin::CRDS;
use serde_json::json;
use taskgate_e2e::{AuditEvent, ControlPlane, Gate, PATIENCE, TASKGATE_AGENT, eventually, task};

const KINDS: [&str; 4] = ["taskpolicies", "workitems", "tasks", "namespaces"];

/// Starts taskgate, lets a policy decide that is in the first list, and one that is not; taskgate's requests of these kinds.
async fn requests(flag: Option<&str>) -> anyhow::Result<Vec<AuditEvent>> {
    let plane = ControlPlane::builder().crds(CRDS);
    let plane = flag.into_iter().fold(plane, taskgate_e2e::Builder::apiserver_flag);
    let cp = plane.start().await?;
    let gate = Gate::start(&cp).await?;
    let ns = cp.namespace("lists").await?;
    let labels = |team: &str| json!({"metadata": {"labels": {"team": team}}});
    ns.policy_for(&task("probe"), "agents", labels("blue")).await?;
    gate.process().terminate().await?;
    let mark = cp.audit().mark()?;
    gate.process().start().await?;
    let team = async || Ok::<_, anyhow::Error>(ns.dry_run(&task("probe")).await?["metadata"]["labels"]["team"].clone());
    ensure!(team().await? == "blue", "the first list has no policy");
    ns.apply_policy("agents", &labels("green")).await?;
    eventually("the change is seen", PATIENCE, || async {
        let found = team().await?;
        ensure!(found == "green", "{found}");
        Ok(())
    })
    .await?;
    let mut events = cp.audit().since(mark).await?;
    events.retain(|event| {
        let is_read = ["list", "watch"].contains(&event.verb.as_str());
        is_read && event.user_agent.starts_with(TASKGATE_AGENT) && KINDS.contains(&event.object_ref.resource.as_str())
    });
    Ok(events)
}

#[tokio::test]
async fn a_cache_is_filled_by_one_watch_that_begins_with_the_newest_state() -> anyhow::Result<()> {
    let events = requests(None).await?;
    for kind in KINDS {
        let mut of_kind = events.iter().filter(|event| event.object_ref.resource == kind);
        let first = of_kind
            .next()
            .map(|event| event.request_uri.as_str())
            .unwrap_or_default();
        ensure!(
            first.contains("sendInitialEvents=true") && first.ends_with("resourceVersion="),
            "{kind}: {first}"
        );
        ensure!(of_kind.next().is_none(), "{kind}: {events:?}");
    }
    Ok(())
}

#[tokio::test]
async fn without_streamed_lists_a_cache_is_filled_by_pages() -> anyhow::Result<()> {
    let events = requests(Some("--feature-gates=WatchList=false")).await?;
    for kind in KINDS {
        let of_kind: Vec<_> = events
            .iter()
            .filter(|event| event.object_ref.resource == kind)
            .collect();
        let codes: Vec<_> = of_kind
            .iter()
            .map(|event| (event.verb.as_str(), event.code()))
            .collect();
        ensure!(
            codes.contains(&("list", 200)) && codes.contains(&("watch", 200)),
            "{kind}: {codes:?}"
        );
        ensure!(
            of_kind.iter().any(|event| event.request_uri.contains("limit=500")),
            "{kind}: {events:?}"
        );
    }
    Ok(())
}
