//! The proposal's own example, and its requirements.

use anyhow::ensure;
use serde_json::json;

use crate::support::{
    annotations, apply_policy, created_with_warnings, governed, labels, selected, start, task, try_policy,
};

#[tokio::test]
async fn the_proposals_example_works_verbatim() -> anyhow::Result<()> {
    // The proposal's `taskTemplate.metadata`, word for word.
    let section = json!({
        "engine": "GoTemplate",
        "labels": {
            "kelos.dev/source-kind": "{{.Kind}}",
            "kelos.dev/priority": "{{index .Labels 0}}",
            "team.example.com/area": "backend",
        },
        "annotations": {
            "kelos.dev/source-url": "{{.URL}}",
            "kelos.dev/source-title": "{{.Title}}",
        },
    });
    let fixture = governed("example", section).await?;
    let (stored, warnings) = created_with_warnings(&fixture, &task("fixer-42")).await?;
    ensure!(labels(&stored)["kelos.dev/source-kind"] == "Issue", "{stored}");
    ensure!(labels(&stored)["team.example.com/area"] == "backend", "{stored}");
    ensure!(
        annotations(&stored)["kelos.dev/source-url"] == "https://github.com/acme/shop/issues/42",
        "{stored}"
    );
    // Only the issue source has title and labels: they are not set, with a warning, and never the text "<no value>".
    ensure!(
        warnings
            == [
                "taskgate: TaskPolicy/agents: left out kelos.dev/priority: line 1, column 3: index of what is not there",
                "taskgate: TaskPolicy/agents: left out kelos.dev/source-title: line 1, column 3: .Title is not there",
            ],
        "{warnings:?}"
    );
    ensure!(labels(&stored)["kelos.dev/priority"].is_null() && !stored.to_string().contains("no value"));
    ensure!(selected(&fixture, "kelos.dev/source-kind=Issue").await? == "task.kelos.dev/fixer-42");
    Ok(())
}

#[tokio::test]
async fn a_dry_run_shows_the_labels_and_stores_nothing() -> anyhow::Result<()> {
    let section = json!({"labels": {"team": "{{ spawner.metadata.labels.team }}"}});
    let fixture = governed("dry", section).await?;
    let shown = fixture.dry_run(&task("fixer-42")).await?;
    ensure!(labels(&shown)["team"] == "blue", "{shown}");
    ensure!(selected(&fixture, "team=blue").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn both_engines_have_the_same_context() -> anyhow::Result<()> {
    let fixture = start("engines").await?;
    let names = [
        ("item.id", "42"),
        ("item.kind", "Issue"),
        ("item.number", "42"),
        ("item.url", "https://github.com/acme/shop/issues/42"),
        ("task.metadata.name", "fixer-42"),
        ("task.spec.model", "opus"),
        ("task.spec.workspaceRef.name", "shop"),
        ("spawner.metadata.name", "fixer"),
        ("spawner.metadata.labels.team", "blue"),
        ("workspace.repo", "https://github.com/acme/shop.git"),
        ("workspace.ref", "main"),
        ("user", "kubernetes-admin"),
    ];
    for (engine, dot) in [("Tera", ""), ("GoTemplate", ".")] {
        let key = |index: usize| format!("value-{index}");
        let annotations: serde_json::Map<_, _> = names
            .iter()
            .enumerate()
            .map(|(index, (name, _))| (key(index), format!("{{{{ {dot}{name} }}}}").into()))
            .collect();
        let cost = match engine {
            "Tera" => "{{ namespace.labels[\"cost-center\"] }}",
            _ => "{{index .namespace.labels \"cost-center\"}}",
        };
        let mut section = json!({"engine": engine, "labels": {"cost-center": cost}, "annotations": annotations});
        section["override"] = json!(true);
        apply_policy(&fixture, "agents", json!({"metadata": section})).await?;
        let shown = fixture.dry_run(&task("fixer-42")).await?;
        ensure!(labels(&shown)["cost-center"] == "4711", "{engine}: {shown}");
        for (index, (name, expected)) in names.iter().enumerate() {
            let value = annotations_of(&shown, &key(index));
            ensure!(
                if *name == "user" {
                    !value.is_empty()
                } else {
                    value == *expected
                },
                "{engine} {name}: {value}"
            );
        }
    }
    Ok(())
}

fn annotations_of(object: &serde_json::Value, key: &str) -> String {
    annotations(object)[key].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn prompts_and_credentials_are_not_in_the_context() -> anyhow::Result<()> {
    let fixture = start("secrets").await?;
    for (engine, template) in [
        ("Tera", "{{ task.spec.prompt }}"),
        ("Tera", "{{ task.spec.credentials.secretRef.name }}"),
        ("GoTemplate", "{{.task.spec.prompt}}"),
        ("GoTemplate", "{{.task.spec.podOverrides.env}}"),
    ] {
        let spec = json!({"metadata": {"engine": engine, "annotations": {"x": template}}});
        let refused = try_policy(&fixture, &spec).await?.stderr_failed()?;
        ensure!(refused.contains("line 1, column"), "{template}: {refused}");
    }
    let section = json!({"engine": "GoTemplate", "annotations": {"all": "{{.}}"}});
    apply_policy(&fixture, "agents", json!({"metadata": section})).await?;
    let shown = fixture.dry_run(&task("fixer-42")).await?;
    let all = annotations_of(&shown, "all");
    ensure!(
        all.contains("fixer-42") && !all.contains("hunter2") && !all.contains("credentials:"),
        "{all}"
    );
    Ok(())
}
