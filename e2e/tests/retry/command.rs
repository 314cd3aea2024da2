//! `taskgate retry`, the real binary against the real API server.

use std::process::{Output, Stdio};

use anyhow::{Context as _, ensure};
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_e2e::{CODER, ForemanFixture, binary};
use tokio::process::Command;

use crate::support::{SEVEN, await_retry, await_retry_condition, retry_condition, start};

pub(crate) async fn retry(
    fixture: &ForemanFixture<'_>,
    kubeconfig: &std::path::Path,
    args: &[&str],
) -> anyhow::Result<Output> {
    Command::new(binary("taskgate")?)
        .args(["retry", "--namespace", fixture.ns.name(), "--kubeconfig"])
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
async fn manually_it_goes_on_beyond_the_limit() -> anyhow::Result<()> {
    let fixture = start("manual", json!({"maxAttempts": 1})).await?;
    fixture.workload("wl", CODER).await?;
    let alice = fixture.cp.kubeconfig_as("alice", &["system:masters"])?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    let early = retry(&fixture, &alice, &["wl"]).await?;
    ensure!(
        early.status.code() == Some(1) && text(&early.stderr).contains("has not failed"),
        "{early:?}"
    );
    let missing = retry(&fixture, &alice, &["workload/missing"]).await?;
    ensure!(
        text(&missing.stderr).contains("there is none in namespace"),
        "{missing:?}"
    );
    fixture.fail("wl").await?;
    await_retry_condition(&fixture, SEVEN, "MaxAttemptsReached").await?;

    let dry = retry(&fixture, &alice, &["wl", "--dry-run"]).await?;
    ensure!(
        text(&dry.stdout) == "Workload wl: is run again as attempt 2 (dry run)\n",
        "{dry:?}"
    );
    let selected = retry(&fixture, &alice, &["-l", "!absent", "--dry-run=client"]).await?;
    ensure!(selected.stdout == dry.stdout, "{selected:?}");
    let done = retry(&fixture, &alice, &["workload/wl", "--with-feedback"]).await?;
    ensure!(
        text(&done.stdout) == "Workload wl: is run again as attempt 2\n",
        "{done:?}"
    );
    let second = fixture.await_attempt("wl", "2").await?;
    ensure!(second.spec.intent.contains("no way forward"), "{}", second.spec.intent);
    fixture.await_event("wl", "RetryPlanned", &["alice"]).await?;

    fixture.fail("wl").await?;
    await_retry_condition(&fixture, SEVEN, "MaxAttemptsReached").await?;
    let numbered = retry(&fixture, &alice, &["wl", "--from-attempt", "7"]).await?;
    ensure!(
        text(&numbered.stdout) == "Workload wl: is run again as attempt 8\n",
        "{numbered:?}"
    );
    fixture.await_attempt("wl", "8").await?;
    fixture.fail("wl").await?;
    let item = await_retry_condition(&fixture, SEVEN, "MaxAttemptsReached").await?;
    let status = item.status.clone().unwrap_or_default();
    let (_, message) = retry_condition(&status);
    ensure!(message.contains("at attempt 8, beyond the limit of 1"), "{message}");
    // One Event for each run, each with its own number.
    let events = fixture.events_with_reason(&item.name_any(), "Retried").await?;
    let mut notes: Vec<_> = events.into_iter().filter_map(|event| event.note).collect();
    notes.sort_unstable();
    let [second, eighth] = notes.as_slice() else {
        anyhow::bail!("{notes:?}")
    };
    ensure!(
        second.contains("as attempt 2") && eighth.contains("as attempt 8"),
        "{notes:?}"
    );
    let over = retry(&fixture, &alice, &["wl", "--reset"]).await?;
    ensure!(
        text(&over.stdout) == "Workload wl: is run again as attempt 1\n",
        "{over:?}"
    );
    fixture.await_attempt("wl", "1").await?;
    await_retry(&fixture, SEVEN, "is at 1", |status, retry| {
        retry.attempt == 1 && status.attempts.len() == 3
    })
    .await
    .map(drop)
}

#[tokio::test]
async fn manually_it_needs_no_policy() -> anyhow::Result<()> {
    let fixture = start("nopolicy", json!({"maxAttempts": 1, "mode": "Off"})).await?;
    fixture.workload("wl", CODER).await?;
    fixture.fail("wl").await?;
    fixture.await_workload_phase("wl", "Failed").await?;
    let alice = fixture.cp.kubeconfig_as("alice", &["system:masters"])?;
    let done = retry(&fixture, &alice, &["wl"]).await?;
    ensure!(done.status.success(), "{done:?}");
    fixture.await_attempt("wl", "2").await.map(drop)
}
