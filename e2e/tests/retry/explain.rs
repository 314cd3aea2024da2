//! `taskgate explain` of a Workload that is not run again.

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::{CODER, suggested_command};

use crate::support::{SEVEN, await_retry_condition, start};

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
