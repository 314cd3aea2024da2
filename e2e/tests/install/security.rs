//! The table of threats, and the threats that no other suite tests.

use anyhow::{Context as _, ensure};
use serde_json::json;
use taskgate_e2e::{PATIENCE, eventually};

use crate::support::{SYSTEM, apply_overlay, governed, plane, pods, project, sources, task};

/// A forged label changes nothing, before or afterwards: the failure counts for the item that the Task states.
#[tokio::test]
async fn a_forged_label_does_not_move_a_failure_to_another_item() -> anyhow::Result<()> {
    let cp = plane().await?;
    apply_overlay(&cp, "self-signed").await?;
    let _running = pods(&cp, SYSTEM, "taskgate").await?;
    let ns = governed(&cp, "team").await?;
    let mut forged = task("real", &json!({}));
    forged["metadata"]["labels"] = json!({"taskgate.dev/work-item": "victim"});
    ns.created(&forged).await?;
    let label = |task: &serde_json::Value| task["metadata"]["labels"]["taskgate.dev/work-item"].clone();
    let written = label(&ns.stored("task.kelos.dev", "real").await?.context("the Task")?);
    ensure!(
        written.as_str().is_some_and(|name| name.starts_with("real-")),
        "{written}"
    );
    let relabel = [
        "label",
        "task.kelos.dev",
        "real",
        "--overwrite",
        "taskgate.dev/work-item=victim",
    ];
    let refused = ns.kubectl(relabel).await?.stderr_failed()?;
    ensure!(
        refused.contains("only taskgate changes taskgate.dev/work-item"),
        "{refused}"
    );
    let failed = json!({"status": {"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"}}).to_string();
    ns.kubectl([
        "patch",
        "task.kelos.dev",
        "real",
        "--subresource=status",
        "--type=merge",
        "-p",
        &failed,
    ])
    .await?
    .stdout_ok()?;
    let of = |item: &str| {
        let mut next = task("next", &json!({}));
        next["metadata"]["annotations"]["taskgate.dev/item"] = item.into();
        next
    };
    eventually("the item is stopped", PATIENCE, || async {
        let refused = ns.create_dry_run(&of("real")).await?.stderr_failed()?;
        ensure!(refused.contains("item real failed once"), "{refused}");
        Ok(())
    })
    .await?;
    ns.dry_run(&of("victim")).await.map(drop)
}

#[test]
fn every_threat_names_a_test_that_exists() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(project("docs/security.md"))?;
    let sources = sources(&project("."))?;
    let rows: Vec<_> = page
        .lines()
        .skip_while(|line| !line.starts_with("|---|---|---|---|"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    ensure!(rows.len() >= 20);
    for row in rows {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for test in tests.split(',').map(|test| test.trim().trim_matches('`')) {
            ensure!(
                sources.contains(&format!("fn {test}(")),
                "{row}: there is no test {test:?}"
            );
        }
    }
    Ok(())
}
