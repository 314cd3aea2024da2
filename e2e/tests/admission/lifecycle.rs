//! taskgate's start, readiness, metrics and log.

use std::process::Stdio;

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::{binary, task};
use tokio::process::Command;

use crate::support::{governed, start};

#[tokio::test]
async fn a_wrong_flag_stops_the_start_and_is_named() -> anyhow::Result<()> {
    for (flag, value) in [
        ("--listen", "nowhere"),
        ("--lame-duck", "soon"),
        ("--configuration", "taskgate"),
        ("--no-such", "x"),
    ] {
        let arg = format!("{flag}={value}");
        let output = Command::new(binary("taskgate")?)
            .args(["serve", &arg])
            .stdin(Stdio::null())
            .output()
            .await?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(2) && told.contains(flag),
            "{arg}: {} {told}",
            output.status
        );
    }
    let missing = ["serve", "--kubeconfig=does-not-exist.yaml"];
    let output = Command::new(binary("taskgate")?)
        .args(missing)
        .stdin(Stdio::null())
        .output()
        .await?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && told.contains("does-not-exist.yaml"),
        "{} {told}",
        output.status
    );
    Ok(())
}

#[tokio::test]
async fn ready_names_every_check() -> anyhow::Result<()> {
    let fixture = start("ready").await?;
    let told = fixture.gate.admin("/readyz").await?;
    for check in [
        "shutdown",
        "caches",
        "certificate",
        "handshake",
        "webhook-configurations",
    ] {
        ensure!(told.contains(&format!("[+]{check} ok")), "{check}: {told}");
    }
    ensure!(fixture.gate.admin("/livez").await.is_ok());
    Ok(())
}

#[tokio::test]
async fn reviews_are_counted_by_kind_verdict_and_dry_run() -> anyhow::Result<()> {
    let fixture = governed("counted", json!({"metadata": {"labels": {"team": "blue"}}})).await?;
    let labels = [
        ("kind", "Task"),
        ("phase", "mutating"),
        ("verdict", "patched"),
        ("dry_run", "true"),
    ];
    let count = || async {
        anyhow::Ok(
            fixture
                .gate
                .metrics()
                .await?
                .value("taskgate_reviews_total", &labels)
                .unwrap_or(0.0),
        )
    };
    let before = count().await?;
    fixture.dry_run(&task("a")).await?;
    ensure!(count().await? >= before + 1.0);
    Ok(())
}

/// Nothing that a user wrote is in the log: prompts least of all.
#[tokio::test]
async fn the_log_contains_no_prompt() -> anyhow::Result<()> {
    let fixture = governed("secrets", json!({"metadata": {"labels": {"team": "blue"}}})).await?;
    let mut secret = task("a");
    secret["spec"]["prompt"] = json!("the-launch-code-is-0000");
    secret["metadata"]["annotations"] = json!({"note": "my-annotation-secret"});
    fixture.created(&secret).await?;
    let log = fixture.gate.process().log()?;
    ensure!(
        !log.contains("launch-code") && !log.contains("annotation-secret"),
        "{log}"
    );
    Ok(())
}
