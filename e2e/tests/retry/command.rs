//! `taskgate retry`, the real binary against the real API server.

use std::process::{Output, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::json;
use taskgate_e2e::binary;
use tokio::process::Command;

use crate::world::{CODER, SEVEN, World};

pub(crate) async fn retry(world: &World, kubeconfig: &std::path::Path, args: &[&str]) -> anyhow::Result<Output> {
    Command::new(binary("taskgate")?)
        .args(["retry", "--namespace", world.ns.name(), "--kubeconfig"])
        .arg(kubeconfig)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await
        .context("running taskgate retry")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn by_hand_it_goes_on_beyond_the_cap() -> anyhow::Result<()> {
    let world = World::start("byhand", json!({"maxAttempts": 1})).await?;
    world.workload("wl", CODER).await?;
    let alice = world.cp.kubeconfig_as("alice", &["system:masters"])?;
    world.phase("wl", "Dispatched").await?;
    let early = retry(&world, &alice, &["wl"]).await?;
    ensure!(
        early.status.code() == Some(1) && text(&early.stderr).contains("has not failed"),
        "{early:?}"
    );
    let missing = retry(&world, &alice, &["workload/nobody"]).await?;
    ensure!(
        text(&missing.stderr).contains("there is none in namespace"),
        "{missing:?}"
    );
    world.fail("wl").await?;
    world.said(SEVEN, "MaxAttemptsReached").await?;

    let dry = retry(&world, &alice, &["wl", "--dry-run"]).await?;
    ensure!(text(&dry.stdout) == "Workload wl: is run again (dry run)\n", "{dry:?}");
    let done = retry(&world, &alice, &["workload/wl", "--with-feedback"]).await?;
    ensure!(text(&done.stdout) == "Workload wl: is run again\n", "{done:?}");
    let second = world.attempt("wl", "2").await?;
    ensure!(second.spec.intent.contains("no way forward"), "{}", second.spec.intent);
    world.told("wl", "RetryPlanned", &["alice"]).await?;

    world.fail("wl").await?;
    world.said(SEVEN, "MaxAttemptsReached").await?;
    let numbered = retry(&world, &alice, &["wl", "--from-attempt", "7"]).await?;
    ensure!(
        text(&numbered.stdout) == "Workload wl: is run again as attempt 8\n",
        "{numbered:?}"
    );
    world.attempt("wl", "8").await?;
    world.fail("wl").await?;
    world.said(SEVEN, "MaxAttemptsReached").await?;
    let over = retry(&world, &alice, &["wl", "--reset"]).await?;
    ensure!(
        text(&over.stdout) == "Workload wl: is run again as attempt 1\n",
        "{over:?}"
    );
    world.attempt("wl", "1").await?;
    world
        .ledger(SEVEN, "is at 1", |status, ledger| {
            ledger.attempt == 1 && status.attempts.len() == 3
        })
        .await
        .map(drop)
}

#[tokio::test]
async fn by_hand_it_needs_no_policy() -> anyhow::Result<()> {
    let world = World::start("nopolicy", json!({"maxAttempts": 1, "mode": "Off"})).await?;
    world.workload("wl", CODER).await?;
    world.fail("wl").await?;
    world.phase("wl", "Failed").await?;
    let alice = world.cp.kubeconfig_as("alice", &["system:masters"])?;
    let done = retry(&world, &alice, &["wl"]).await?;
    ensure!(done.status.success(), "{done:?}");
    world.attempt("wl", "2").await.map(drop)
}
