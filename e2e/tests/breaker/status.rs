//! `taskgate status` prints tripped items and their tombstones.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use taskgate_e2e::{KelosFixture, binary};
use tokio::process::Command;

use crate::support::{governed, limit};

async fn status(fixture: &KelosFixture<'_>, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(binary("taskgate")?)
        .args(["status", "--namespace", fixture.ns.name(), "--kubeconfig"])
        .arg(fixture.cp.kubeconfig())
        .args(args)
        .output()
        .await?;
    ensure!(
        output.status.code() == Some(0) && output.stderr.is_empty(),
        "{output:?}"
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn a_tripped_item_is_printed_with_its_attempts_and_its_cost() -> anyhow::Result<()> {
    let fixture = governed("status", limit(1)).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    fixture.fail("fixer-42").await?;
    fixture.await_open("42").await?;

    let told = status(&fixture, &[]).await?;
    ensure!(told.contains("\nTaskPolicy/agents  Enforce  1\n"), "{told}");
    let line = |start: &str| {
        let line = told.lines().find(|line| line.starts_with(start));
        let words: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
        ensure!(!words.is_empty(), "no line of {start:?} in\n{told}");
        Ok(words)
    };
    let tombstone = line("fixer-42 ")?;
    ensure!(
        tombstone[1] == "CircuitBroken" && tombstone[3] == "TaskPolicy/agents",
        "{tombstone:?}"
    );
    ensure!(told.contains("taskgate reset fixer/42 lets it start again"), "{told}");
    let item = line("fixer/42 ")?;
    ensure!(
        item[1..5] == ["Open", "1", "1", "$0.25"] && item[6] == "MaxRetriesExceeded",
        "{item:?}"
    );

    let report: Value = serde_json::from_str(&status(&fixture, &["-o", "json"]).await?)?;
    let item = report.pointer("/openItems/entries/0").context("no item")?;
    ensure!(
        item["key"] == "fixer/42" && item["totalCostUSD"] == json!("0.25"),
        "{item}"
    );
    Ok(())
}
