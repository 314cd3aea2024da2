//! A replica whose clock is wrong: what it waits for ends by the API server's clock, and beyond five minutes it does not lead.

use std::time::Duration;

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use kelos_standin::CRDS;
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, SharedGate, await_object, eventually, never, task};

use crate::support::governed_on;

static AHEAD: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));

async fn skew(gate: &Gate) -> anyhow::Result<f64> {
    Ok(gate.metrics().await?.sum("taskgate_clock_skew_seconds"))
}

async fn leads(gate: &Gate) -> anyhow::Result<bool> {
    Ok(gate.metrics().await?.sum("taskgate_leader") > 0.0)
}

/// By its own clock, everything below is over before it begins.
#[tokio::test]
async fn a_leader_whose_clock_is_ahead_ends_nothing_too_early() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "resetAfter": "20s"}});
    let fixture = governed_on(&AHEAD, Gate::builder().clock_ahead(240), "ahead", spec).await?;
    let ahead = skew(fixture.gate).await?;
    ensure!((ahead - 240.0).abs() < 3.0, "{ahead}");
    fixture.repo().issue(5);
    fixture.issue_spawner("fixer", Some(0)).await?;
    let first = fixture.fail("fixer-5").await?;
    let opened = fixture
        .await_open("5")
        .await?
        .status
        .and_then(|status| status.opened_at);
    let opened = opened.map(|time| time.0).unwrap_or_default();
    ensure!(
        opened <= Timestamp::now() + SignedDuration::from_secs(2),
        "{opened} is in the future"
    );
    let tasks = fixture.tasks();
    never(
        "the tombstone is deleted too early",
        Duration::from_secs(12),
        || async {
            let found = tasks.get_opt("fixer-5").await?;
            let is_kept = found.is_some_and(|task| task.uid().as_deref() == Some(&first));
            Ok((!is_kept).then_some(Timestamp::now()))
        },
    )
    .await?;
    let probe = fixture.await_next_task("fixer-5", &first).await?;
    let waited = probe
        .creation_timestamp()
        .map(|created| created.0.duration_since(opened));
    ensure!(waited >= Some(SignedDuration::from_secs(19)), "{waited:?}");
    ensure!(fixture.failed_cycles("fixer") == 0, "admission and controller differ");
    Ok(())
}

#[tokio::test]
async fn a_replica_whose_clock_is_ten_minutes_ahead_does_not_lead() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let wrong = Gate::builder().named("wrong").clock_ahead(600).start(&cp).await?;
    eventually("its clock is compared", PATIENCE, || async {
        let ahead = skew(&wrong).await?;
        ensure!((ahead - 600.0).abs() < 3.0, "{ahead}");
        Ok(())
    })
    .await?;
    never("it leads", Duration::from_secs(8), || async {
        Ok(leads(&wrong).await?.then_some("leads"))
    })
    .await?;
    let ready = wrong.admin("/readyz").await?;
    ensure!(
        ready.contains("[+]clock ok, but") && ready.contains("does not lead"),
        "{ready}"
    );
    let log = wrong.process().log()?;
    ensure!(log.matches("not leading: ").count() == 1, "{log}");
    // It serves admission, and another replica leads.
    let right = Gate::builder().named("right").start(&cp).await?;
    eventually("the other leads", PATIENCE, || async {
        ensure!(leads(&right).await?);
        Ok(())
    })
    .await?;
    ensure!(skew(&right).await?.abs() < 1.0);
    let ns = cp.namespace("wrong-clock").await?;
    ns.created(&task("a")).await?;
    await_object(&ns.tasks(), "a", "is there", |_| true).await?;
    Ok(())
}
