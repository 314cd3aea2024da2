//! `taskgate explain`: what it says of a Workload that is not run again.

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::suggested_command;

use crate::world::{CODER, SEVEN, World};

#[tokio::test]
async fn a_workload_at_its_cap_says_so_and_how_it_is_run_again() -> anyhow::Result<()> {
    let world = World::start("explain", json!({"maxAttempts": 1})).await?;
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    world.said(SEVEN, "MaxAttemptsReached").await?;
    let story = world.cp.explain(world.ns.name(), "workload/wl").await?;
    ensure!(story["state"] == "Failed", "{story:#}");
    ensure!(
        story.to_string().contains("retry by TaskPolicy/retry (Enforce)"),
        "{story:#}"
    );
    let again = suggested_command(&story, "MaxAttemptsReached: ")?;
    world.cp.paste(again).await?;
    world.attempt("wl", "2").await.map(drop)
}
