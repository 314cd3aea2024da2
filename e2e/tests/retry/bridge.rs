//! Beside the dispatch bridge: never both act on the same object.

use std::time::Duration;

use anyhow::ensure;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{ForemanFixture, PATIENCE, attempt_number, await_gone, eventually, never, stuck};

use crate::support::{await_retry_condition, start, stays_unchanged, three, work_item_of, workload};

fn bridged(name: &str, by: &str) -> Value {
    let mut object = workload(name);
    object["metadata"]["labels"] = json!({"created-by": by, "lane": "local"});
    object["metadata"]["annotations"] = json!({"foreman.llmkube.dev/attempt": "1"});
    object
}

#[tokio::test]
async fn both_kinds_of_the_bridges_objects_are_not_retried() -> anyhow::Result<()> {
    let fixture = start("left", three(json!({}))).await?;
    for (name, by) in [("issue", "dispatch-bridge"), ("fix", "dispatch-bridge-prfix")] {
        fixture.created(&bridged(name, by)).await?;
        fixture.end(name, stuck()).await?;
        fixture.await_workload_phase(name, "Failed").await?;
    }
    for name in ["issue", "fix"] {
        stays_unchanged(&fixture, name).await?;
        assert_eq!(fixture.runs(name), 1);
        ensure!(work_item_of(&fixture, name).await.is_err(), "{name} is recorded");
    }
    Ok(())
}

/// `examples/proposals/003`: three runs of a Workload of the bridge, of which the last one stays.
#[tokio::test]
async fn the_proposals_policy_runs_a_workload_of_the_bridge_three_times() -> anyhow::Result<()> {
    const POLICY: &str = include_str!("../../../examples/proposals/003/policy.yaml");
    let fixture = start("proposal", three(json!({}))).await?;
    fixture
        .kubectl(["delete", "taskpolicies", "retry"])
        .await?
        .stdout_ok()?;
    fixture.apply_yaml(POLICY).await?;
    fixture.await_policy_accepted("dispatch-bridge").await?;
    fixture.created(&bridged("wl", "dispatch-bridge")).await?;
    let mut last = fixture.end("wl", stuck()).await?;
    for attempt in ["2", "3"] {
        let next = fixture.await_successor(&last).await?;
        assert_eq!(attempt_number(&next), Some(attempt));
        last = fixture.end("wl", stuck()).await?;
    }
    stays_unchanged(&fixture, "wl").await?;
    assert_eq!(fixture.runs("wl"), 3);
    Ok(())
}

/// A bridge that goes on as before, without preconditions, concurrently with the same objects: as its code does, delete in the
/// foreground, wait for a 404, create.
#[tokio::test]
async fn an_unmodified_bridge_and_a_take_over_never_create_two() -> anyhow::Result<()> {
    let fixture = start("both", three(json!({"takeOver": true, "maxAttempts": 2}))).await?;
    let names: Vec<String> = (0..6).map(|index| format!("wl-{index}")).collect();
    for name in &names {
        fixture.created(&bridged(name, "dispatch-bridge")).await?;
    }
    let mut firsts = Vec::new();
    for name in &names {
        firsts.push(fixture.await_workload_phase(name, "Dispatched").await?);
    }
    // One tick: list what has failed, and then go through it.
    let tick = async || -> anyhow::Result<()> {
        let workloads = fixture.workloads();
        let own = ListParams::default().labels("created-by=dispatch-bridge");
        let failed = workloads
            .list(&own)
            .await?
            .items
            .into_iter()
            .filter(|wl| wl.phase() == "Failed");
        for name in failed.map(|wl| wl.name_any()) {
            match workloads.delete(&name, &DeleteParams::foreground()).await {
                Ok(_) | Err(kube::Error::Api(_)) => {}
                Err(error) => return Err(error.into()),
            }
            await_gone_or_new(&fixture, &name).await?;
            let mut again = bridged(&name, "dispatch-bridge");
            again["metadata"]["annotations"]["foreman.llmkube.dev/attempt"] = json!("2");
            // 409 is success to the bridge.
            let _ = workloads
                .create(&PostParams::default(), &serde_json::from_value(again)?)
                .await;
        }
        Ok(())
    };
    for (index, name) in names.iter().enumerate() {
        fixture.finish(&format!("{name}-code-7"), stuck()).await?;
        // Paces the bridge: it comes a little later each time, while taskgate may be at any step.
        tokio::time::sleep(Duration::from_millis(40 * index as u64)).await;
        tick().await?;
    }
    for (name, first) in names.iter().zip(&firsts) {
        let next = fixture.await_successor(first).await?;
        ensure!(
            attempt_number(&next) == Some("2"),
            "{name}: {:?}",
            attempt_number(&next)
        );
    }
    // The bridge deletes by name: what came between its list and its deletion goes, too, and it makes that good.
    never("a run too many", Duration::from_secs(3), || async {
        let runs = names.iter().map(|name| (name, fixture.runs(name)));
        Ok(runs.into_iter().find(|(_, runs)| *runs > 3))
    })
    .await?;
    for name in &names {
        let runs = fixture.runs(name);
        ensure!(runs >= 2, "{name} ran {runs} times");
        let last = fixture.workloads().get(name).await?;
        ensure!(
            attempt_number(&last) == Some("2"),
            "{name}: {:?}",
            attempt_number(&last)
        );
    }
    let mut running = Vec::new();
    for execution in fixture.foreman.journal().executions() {
        ensure!(
            running.iter().all(|other| !execution.collides_with(other)),
            "{execution:?}"
        );
        running.push(execution);
    }
    Ok(())
}

/// The bridge deletes by name: a delete that it decided on while the predecessor was there removes the successor.
#[tokio::test]
async fn a_delete_that_comes_late_is_reported_and_not_counted() -> anyhow::Result<()> {
    let fixture = start("late", three(json!({"takeOver": true, "maxAttempts": 2}))).await?;
    fixture.created(&bridged("wl", "dispatch-bridge")).await?;
    let first = fixture.end("wl", stuck()).await?;
    fixture.await_successor(&first).await?;
    let running = fixture.await_attempt("wl", "2").await?;
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&fixture.workloads(), "wl").await?;
    let item = await_retry_condition(&fixture, "Workload/acme/wl#7", "DeletedExternally").await?;
    let retry = item.status.and_then(|status| status.retry).unwrap_or_default();
    assert_eq!((retry.attempt, retry.run), (1, None));
    let events = fixture.events_with_reason("wl", "RetryEnded").await?;
    ensure!(
        events.iter().any(|event| event.type_.as_deref() == Some("Warning")),
        "{events:?}"
    );
    // What the bridge creates next is the second run, and not beyond the limit.
    fixture.created(&bridged("wl", "dispatch-bridge")).await?;
    let again = fixture.end("wl", stuck()).await?;
    ensure!(again.uid() != running.uid());
    let item = await_retry_condition(&fixture, "Workload/acme/wl#7", "MaxAttemptsReached").await?;
    let retry = item.status.and_then(|status| status.retry).unwrap_or_default();
    assert_eq!(retry.attempt, 2);
    Ok(())
}

async fn await_gone_or_new(fixture: &ForemanFixture<'_>, name: &str) -> anyhow::Result<()> {
    eventually("what it deleted is gone", PATIENCE, async || {
        let there = fixture.workloads().get_opt(name).await?;
        ensure!(
            there.is_none_or(|wl| wl.metadata.deletion_timestamp.is_none()),
            "still there"
        );
        Ok(())
    })
    .await
}
