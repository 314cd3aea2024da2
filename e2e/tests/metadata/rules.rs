//! Precedence of values, and values that are left out.

use anyhow::ensure;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_e2e::{PATIENCE, eventually, never};

use crate::support::{annotations, apply_policy, created_with_warnings, governed, labels, start, task};

fn mine(key: &str, value: &str) -> Value {
    let mut mine = task("mine");
    mine["metadata"]["labels"][key] = json!(value);
    mine
}

#[tokio::test]
async fn the_creators_value_stays_unless_it_is_overridden() -> anyhow::Result<()> {
    let section = json!({"labels": {"team": "{{ spawner.metadata.labels.team }}"}});
    let fixture = governed("creator", section.clone()).await?;
    let (stored, warnings) = created_with_warnings(&fixture, &mine("team", "red")).await?;
    ensure!(labels(&stored)["team"] == "red", "{stored}");
    ensure!(
        warnings == ["taskgate: TaskPolicy/agents: kept the Task's own value of team"],
        "{warnings:?}"
    );
    let mut overriding = section;
    overriding["override"] = json!(true);
    apply_policy(&fixture, "agents", json!({"metadata": overriding})).await?;
    let mut other = mine("team", "red");
    other["metadata"]["name"] = json!("other");
    let shown = fixture.dry_run(&other).await?;
    ensure!(labels(&shown)["team"] == "blue", "{shown}");
    Ok(())
}

#[tokio::test]
async fn several_policies_merge_key_by_key() -> anyhow::Result<()> {
    let fixture = start("merge").await?;
    apply_policy(
        &fixture,
        "weak",
        json!({"priority": 1, "metadata": {"labels": {"team": "weak", "area": "weak", "size": "weak"}}}),
    )
    .await?;
    let strong = json!({"labels": {"team": "strong", "area": "{{ task.metadata.labels.absent }}"}});
    apply_policy(&fixture, "strong", json!({"priority": 2, "metadata": strong})).await?;
    let shown = fixture.dry_run(&task("a")).await?;
    let expected = json!({"kelos.dev/taskspawner": "fixer", "team": "strong", "area": "weak", "size": "weak"});
    ensure!(*labels(&shown) == expected, "{}", labels(&shown));
    // A section that is off exempts from all weaker ones.
    apply_policy(
        &fixture,
        "off",
        json!({"priority": 3, "selector": {"taskSelector": {"matchLabels": {"plain": "yes"}}},
            "metadata": {"mode": "Off", "labels": {"x": "y"}}}),
    )
    .await?;
    eventually("taskgate has seen the exemption", PATIENCE, || async {
        let shown = fixture.dry_run(&mine("plain", "yes")).await?;
        ensure!(labels(&shown)["size"].is_null(), "{shown}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_missing_value_has_an_event_too_and_a_default_replaces_it() -> anyhow::Result<()> {
    let section =
        json!({"labels": {"tier": "{{ namespace.labels.tier }}", "team": "{{ spawner.metadata.labels.team }}"}});
    let fixture = governed("missing", section.clone()).await?;
    let (stored, warnings) = created_with_warnings(&fixture, &task("a")).await?;
    let why = "tier: line 1, column 21: Field `tier` is not defined";
    ensure!(
        warnings == [format!("taskgate: TaskPolicy/agents: left out {why}")],
        "{warnings:?}"
    );
    ensure!(
        labels(&stored)["tier"].is_null() && labels(&stored)["team"] == "blue",
        "{stored}"
    );
    ensure!(annotations(&stored)["taskgate.dev/metadata-skipped"] == why, "{stored}");
    let events = Api::<Event>::namespaced(fixture.cp.client(), fixture.ns.name());
    let skipped = || async {
        let events = events.list(&ListParams::default()).await?.items;
        let skipped = events
            .iter()
            .filter(|event| event.reason.as_deref() == Some("MetadataSkipped"));
        anyhow::Ok(
            skipped
                .map(|event| (event.name_any(), event.note.clone()))
                .collect::<Vec<_>>(),
        )
    };
    eventually("there is an Event", PATIENCE, || async {
        let found = skipped().await?;
        ensure!(
            matches!(found.as_slice(), [(_, Some(note))] if note.contains(why)),
            "{found:?}"
        );
        Ok(())
    })
    .await?;
    let metrics = fixture.gate.metrics().await?;
    let counted = metrics.value(
        "taskgate_reasons_total",
        &[("code", "MetadataSkipped"), ("mode", "enforce")],
    );
    ensure!(counted.is_some_and(|count| count >= 1.0), "{counted:?}");
    never("a second Event", std::time::Duration::from_secs(2), || async {
        Ok((skipped().await?.len() > 1).then_some("there are two"))
    })
    .await?;
    let mut with_default = section;
    with_default["missingValue"] = json!("none");
    apply_policy(&fixture, "agents", json!({"metadata": with_default})).await?;
    let shown = fixture.dry_run(&task("b")).await?;
    ensure!(labels(&shown)["tier"] == "none", "{shown}");
    Ok(())
}

#[tokio::test]
async fn observe_and_warn_change_nothing() -> anyhow::Result<()> {
    let fixture = governed("modes", json!({"annotations": {"x": "y"}})).await?;
    apply_policy(
        &fixture,
        "soft",
        json!({"mode": "Warn", "priority": 5, "metadata": {"labels": {"team": "{{ user }}"}}}),
    )
    .await?;
    eventually("taskgate has seen the policy", PATIENCE, || async {
        let output = fixture
            .kubectl_with_input(["create", "-f-", "--dry-run=server"], &task("a").to_string())
            .await?;
        let warnings = output.warnings();
        ensure!(
            warnings == ["taskgate: TaskPolicy/soft: would set team"],
            "{warnings:?}"
        );
        Ok(())
    })
    .await?;
    let shown = fixture.dry_run(&task("a")).await?;
    ensure!(labels(&shown)["team"].is_null(), "{shown}");
    Ok(())
}
