//! `taskgate explain` of a Workload that is not run again.

use anyhow::{Context as _, ensure};
use serde_json::json;
use taskgate_e2e::{CODER, suggested_command};

use crate::support::{SEVEN, await_reason, await_retry_condition, fail_new, start, three};

#[tokio::test]
async fn at_its_limit_it_gives_the_reason_and_the_command_that_runs_it_again() -> anyhow::Result<()> {
    let fixture = start("explain", json!({"maxAttempts": 1})).await?;
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    await_retry_condition(&fixture, SEVEN, "MaxAttemptsReached").await?;
    let explanation = fixture.cp.explain(fixture.ns.name(), "workload/wl").await?;
    ensure!(explanation["state"] == "Failed", "{explanation:#}");
    ensure!(
        explanation.to_string().contains("retry by TaskPolicy/retry (Enforce)"),
        "{explanation:#}"
    );
    let again = suggested_command(&explanation, "MaxAttemptsReached: ")?;
    fixture.cp.paste(again).await?;
    fixture.await_attempt("wl", "2").await.map(drop)
}

/// The backoff has an end that users can read, for as long as a policy retries the object.
#[tokio::test]
async fn the_next_attempt_is_announced_until_its_policy_is_deleted() -> anyhow::Result<()> {
    let fixture = start("backoff", three(json!({"backoff": {"initial": "5m", "max": "5m"}}))).await?;
    fail_new(&fixture, "wl").await?;
    let item = await_reason(&fixture, "wl", "BackingOff").await?;
    let failure = item.status.and_then(|status| status.retry?.failure);
    let due = failure
        .and_then(|failure| failure.next_attempt_time)
        .context("no time")?
        .0;
    let listed = fixture
        .cp
        .kubectl(["get", "workitems", "-n", fixture.ns.name()])
        .await?
        .stdout_ok()?;
    ensure!(
        listed.contains("NEXT RETRY") && listed.contains(&due.to_string()),
        "{listed}"
    );
    let explanation = fixture.cp.explain(fixture.ns.name(), "workload/wl").await?;
    let announced = format!("at attempt 1 of 3 and runs again as attempt 2 at {due}");
    ensure!(explanation.to_string().contains(&announced), "{explanation:#}");

    let delete = ["delete", "taskpolicies.taskgate.dev", "retry", "-n", fixture.ns.name()];
    fixture.cp.kubectl(delete).await?.stdout_ok()?;
    let item = await_reason(&fixture, "wl", "PolicyGone").await?;
    let failure = item.status.and_then(|status| status.retry?.failure);
    ensure!(failure.is_some_and(|failure| failure.next_attempt_time.is_none()));
    let explanation = fixture.cp.explain(fixture.ns.name(), "workload/wl").await?;
    ensure!(
        explanation.to_string().contains("no policy retries it any more"),
        "{explanation:#}"
    );
    Ok(())
}
