//! The recipes of docs/metadata.md, each as it stands there.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use taskgate_e2e::{Fixture, job_of};

use crate::support::{annotations, created_with_warnings, governed, labels, selected, task};

/// The metadata section of the example under the heading `title`.
pub(crate) fn recipe(title: &str) -> anyhow::Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metadata.md");
    let text = std::fs::read_to_string(path)?;
    let (_, rest) = text.split_once(&format!("# {title}\n")).context("no such recipe")?;
    let (_, rest) = rest.split_once("```yaml\n").context("a recipe has YAML")?;
    let (yaml, _) = rest.split_once("```").context("the YAML ends")?;
    let spec: Value = serde_saphyr::from_str(yaml)?;
    Ok(spec["metadata"].clone())
}

/// A Task and its Job under the recipe `title`.
async fn tried(title: &str) -> anyhow::Result<(Fixture<'static>, Value, Value)> {
    let fixture = governed("recipe", recipe(title)?).await?;
    let mut object = task("fixer-42");
    object["metadata"]["annotations"]["example.com/item-labels"] = json!("bug, priority/critical, size/XL");
    let (task, warnings) = created_with_warnings(&fixture, &object).await?;
    ensure!(warnings.is_empty(), "{title}: {warnings:?}");
    let job = fixture.dry_run(&job_of(&task)).await?;
    Ok((fixture, task, job))
}

#[tokio::test]
async fn nodes_by_priority() -> anyhow::Result<()> {
    let (_, _, job) = tried("Nodes by priority").await?;
    let pod = labels(&job["spec"]["template"]);
    ensure!(pod["kelos.dev/priority"] == "critical" && pod["size"] == "XL", "{pod}");
    Ok(())
}

#[tokio::test]
async fn metrics_by_team() -> anyhow::Result<()> {
    let (_, _, job) = tried("Metrics by team").await?;
    let pod = labels(&job["spec"]["template"]);
    ensure!(pod["team"] == "blue" && pod["spawner"] == "fixer", "{pod}");
    Ok(())
}

#[tokio::test]
async fn chargeback() -> anyhow::Result<()> {
    let (_, task, job) = tried("Chargeback").await?;
    for object in [&task, &job, &job["spec"]["template"]] {
        let labels = labels(object);
        ensure!(
            labels["cost-center"] == "4711" && labels["team"] == "blue" && labels["model"] == "opus",
            "{labels}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn filters_for_kubectl() -> anyhow::Result<()> {
    let (fixture, _, _) = tried("Filters for kubectl").await?;
    ensure!(selected(&fixture, "kelos.dev/source-kind=Issue,repo=acme-shop").await? == "task.kelos.dev/fixer-42");
    Ok(())
}

#[tokio::test]
async fn an_audit_trail() -> anyhow::Result<()> {
    let (_, task, job) = tried("An audit trail").await?;
    let url = "https://github.com/acme/shop/issues/42";
    ensure!(
        annotations(&task)["kelos.dev/source-url"] == url && annotations(&job)["kelos.dev/source-url"] == url,
        "{task}"
    );
    let by = annotations(&task)["audit.example.com/created-by"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ensure!(
        !by.is_empty() && annotations(&task)["audit.example.com/repo"] == "https://github.com/acme/shop.git main",
        "{task}"
    );
    Ok(())
}
