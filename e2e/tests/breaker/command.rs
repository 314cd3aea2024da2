//! `taskgate reset`, the real binary against the real API server.

use std::process::{Output, Stdio};

use anyhow::{Context as _, ensure};
use kube::ResourceExt as _;
use taskgate_api::work_item::Breaker;
use taskgate_e2e::{KelosFixture, binary, breaker, failures};
use tokio::process::Command;

use crate::support::{governed, limit, task_of_item};

/// Runs `taskgate reset` in the fixture's namespace with this kubeconfig.
async fn reset(fixture: &KelosFixture<'_>, kubeconfig: &std::path::Path, args: &[&str]) -> anyhow::Result<Output> {
    Command::new(binary("taskgate")?)
        .args(["reset", "--namespace", fixture.ns.name(), "--kubeconfig"])
        .arg(kubeconfig)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await
        .context("running taskgate reset")
}

fn printed(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn one_command_resets_and_records_who_and_why() -> anyhow::Result<()> {
    let fixture = governed("command", limit(1)).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    let uid = fixture.fail("fixer-42").await?;
    let name = fixture.await_open("42").await?.name_any();
    let alice = fixture.cp.kubeconfig_as("alice", &["system:masters"])?;

    let dry = printed(&reset(&fixture, &alice, &["42", "--dry-run"]).await?);
    let told = "item fixer/42: 1 failure (cost $0.25 so far) would be reset (dry run)\n";
    ensure!(dry == (Some(0), told.to_owned(), String::new()), "{dry:?}");
    ensure!(breaker(&fixture.await_open("42").await?) == Some(Breaker::Open));

    let done = printed(
        &reset(
            &fixture,
            &alice,
            &["fixer/42", &name, "--reason", "the flaky test is fixed"],
        )
        .await?,
    );
    let told = "item fixer/42: 1 failure (cost $0.25 so far) reset\n";
    ensure!(done == (Some(0), told.to_owned(), String::new()), "{done:?}");
    fixture.await_next_task("fixer-42", &uid).await?;
    let item = fixture
        .await_work_item("42", "is reset", |item| failures(item) == 0)
        .await?;
    let status = item.status.unwrap_or_default();
    ensure!(
        status.attempts.len() == 1 && status.total_cost_usd.as_deref() == Some("0.25"),
        "{status:?}"
    );
    let last = status.last_reset.context("no reset")?;
    ensure!(last.by.as_deref() == Some("alice") && last.message.as_deref() == Some("the flaky test is fixed"));
    fixture
        .await_event(&name, "CircuitReset", &["asked for by alice: the flaky test is fixed"])
        .await?;
    ensure!(fixture.failed_cycles("fixer") == 0);

    let again = printed(&reset(&fixture, &alice, &["42"]).await?);
    ensure!(again.1 == "item fixer/42: no failures to reset\n", "{again:?}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_reset_is_printed_with_exit_code_1_or_2() -> anyhow::Result<()> {
    let fixture = governed("refused", limit(1)).await?;
    for spawner in ["a", "b"] {
        fixture.issue_spawner(spawner, None).await?;
    }
    fixture.repo().issue(42);
    fixture.fail("a-42").await?;
    fixture.fail("b-42").await?;
    let admin = fixture.cp.kubeconfig();

    let ambiguous = printed(&reset(&fixture, admin, &["42"]).await?);
    let told = "taskgate: 42 can be any of a/42, b/42: name one of them\n";
    ensure!(ambiguous == (Some(2), String::new(), told.to_owned()), "{ambiguous:?}");
    let missing = printed(&reset(&fixture, admin, &["a/42", "43"]).await?);
    ensure!(
        missing.0 == Some(1) && missing.2.contains("there is no item 43"),
        "{missing:?}"
    );
    let bob = fixture.cp.kubeconfig_as("bob", &["system:authenticated"])?;
    let forbidden = printed(&reset(&fixture, &bob, &["a/42"]).await?);
    ensure!(forbidden.0 == Some(1), "{forbidden:?}");
    ensure!(
        forbidden.2.contains(r#"User "bob" cannot list resource "workitems""#),
        "{forbidden:?}"
    );
    let still = fixture
        .await_work_item("42", "is open", |item| breaker(item) == Some(Breaker::Open))
        .await?;
    ensure!(failures(&still) == 1, "nothing is reset when one is not clear");

    let as_bob = ["a/42", "--as", "bob", "--as-group", "system:authenticated"];
    let impersonated = printed(&reset(&fixture, admin, &as_bob).await?);
    ensure!(impersonated.2 == forbidden.2, "{impersonated:?}");

    let unconfirmed = printed(&reset(&fixture, admin, &["--all-open"]).await?);
    ensure!(
        unconfirmed.0 == Some(2) && unconfirmed.2.contains("Reset 2 items") && unconfirmed.2.contains("pass --yes"),
        "{unconfirmed:?}"
    );
    for strategy in ["--dry-run=client", "--dry-run=server"] {
        let dry = printed(&reset(&fixture, admin, &["--all-open", strategy]).await?);
        ensure!(
            dry.0 == Some(0) && dry.1.matches("(dry run)").count() == 2,
            "{strategy}: {dry:?}"
        );
    }
    let all = printed(&reset(&fixture, admin, &["--all-open", "--yes"]).await?);
    ensure!(all.0 == Some(0) && all.1.lines().count() == 2, "{all:?}");
    Ok(())
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() -> anyhow::Result<()> {
    let fixture = governed("pipe", limit(1)).await?;
    fixture.created(&task_of_item("first", "epic")).await?;
    fixture.fail("first").await?;
    fixture.await_open("epic").await?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let output = Command::new(binary("taskgate")?)
        .args(["reset", "epic", "--namespace", fixture.ns.name(), "--kubeconfig"])
        .arg(fixture.cp.kubeconfig())
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()
        .await?;
    ensure!(
        output.status.code() == Some(0) && output.stderr.is_empty(),
        "{output:?}"
    );
    fixture
        .await_work_item("epic", "is reset", |item| failures(item) == 0)
        .await
        .map(drop)
}
