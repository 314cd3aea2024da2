//! Each source of Kelos, and what an item is there (kelos §3, §5).

use anyhow::ensure;
use kelos_standin::{Delivered, Delivery};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::KelosFixture;

use crate::support::{governed, limit, task};

fn event(event: &str, delivery: &str, id: &str) -> Delivery {
    Delivery {
        event: event.into(),
        delivery_id: delivery.into(),
        id: id.into(),
        number: id.parse().unwrap_or_default(),
        title: "Crash".into(),
        owner: "Acme".into(),
        repository: "Shop".into(),
        ..Delivery::default()
    }
}

async fn delivered(fixture: &KelosFixture<'_>, spawner: &str, event: &Delivery) -> anyhow::Result<String> {
    match fixture.standin.deliver(&fixture.key(spawner), event).await? {
        Delivered::Created(name) => Ok(name),
        other => anyhow::bail!("{other:?}"),
    }
}

/// Kelos' server answers 500 with the reason.
async fn denied(fixture: &KelosFixture<'_>, spawner: &str, event: &Delivery) -> anyhow::Result<String> {
    let answer = fixture.standin.deliver(&fixture.key(spawner), event).await;
    match answer {
        Err(error) => Ok(error.to_string()),
        Ok(other) => anyhow::bail!("it passed: {other:?}"),
    }
}

/// A pushed spawner whose Tasks carry these annotations.
async fn pushed(fixture: &KelosFixture<'_>, name: &str, when: Value, annotations: Value) -> anyhow::Result<()> {
    let spawner = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": name},
        "spec": {"when": when, "taskTemplate": {
            "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"},
            "promptTemplate": "fix {{.Title}}", "metadata": {"annotations": annotations},
        }},
    });
    fixture.apply_yaml(&spawner.to_string()).await
}

#[tokio::test]
async fn a_github_webhook_that_reports_has_one_item_per_issue() -> anyhow::Result<()> {
    let fixture = governed("hook", limit(1)).await?;
    let when = json!({"githubWebhook": {"events": ["issues", "issue_comment"], "reporting": {"enabled": true}}});
    pushed(&fixture, "hook", when, json!({})).await?;
    let first = delivered(&fixture, "hook", &event("issues", "d-1", "42")).await?;
    fixture.fail(&first).await?;
    fixture.await_open("acme/shop#42").await?;
    let told = denied(&fixture, "hook", &event("issue_comment", "d-2", "42")).await?;
    ensure!(told.contains("item acme/shop#42 failed once (limit 1)"), "{told}");
    delivered(&fixture, "hook", &event("issue_comment", "d-3", "43"))
        .await
        .map(drop)
}

#[tokio::test]
async fn deliveries_without_an_identity_are_items_of_their_own_and_the_template_may_state_one() -> anyhow::Result<()> {
    let fixture = governed("pushed", limit(1)).await?;
    let hook = json!({"githubWebhook": {"events": ["push"]}});
    let linear = json!({"linearWebhook": {"types": ["Issue"]}});
    let generic = json!({"webhook": {"source": "pager", "fieldMapping": {"id": "$.id"}}});
    let slack = json!({"slack": {}});
    for (spawner, when, kind) in [
        ("quiet", hook, "push"),
        ("lin", linear, "issue"),
        ("gen", generic, "pager"),
        ("chat", slack, "slack"),
    ] {
        pushed(&fixture, spawner, when.clone(), json!({})).await?;
        let first = delivered(&fixture, spawner, &event(kind, "d-1", "X-1")).await?;
        let item = first.trim_start_matches(spawner).trim_start_matches('-').to_owned();
        ensure!(item.starts_with(kind) && item.len() == kind.len() + 13, "{first}");
        fixture.fail(&first).await?;
        fixture.await_open(&item).await?;
        // Another delivery about the same thing: nothing ties the two together (kelos T17).
        delivered(&fixture, spawner, &event(kind, "d-2", "X-1")).await?;
        // The user can: Kelos renders annotations.
        let tied = format!("{spawner}-tied");
        let stated = json!({(keys::ITEM): format!("{spawner}/{{{{.ID}}}}")});
        pushed(&fixture, &tied, when, stated).await?;
        let first = delivered(&fixture, &tied, &event(kind, "d-3", "X-1")).await?;
        fixture.fail(&first).await?;
        fixture.await_open(&format!("{spawner}/X-1")).await?;
        let told = denied(&fixture, &tied, &event(kind, "d-4", "X-1")).await?;
        ensure!(told.contains(&format!("item {spawner}/X-1 failed once")), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn a_jira_key_is_the_item() -> anyhow::Result<()> {
    let fixture = governed("jira", limit(1)).await?;
    // Jira is polled; its Tasks are named by the key, and nothing is stamped on them (kelos §3).
    let mut task = task("jira-abc-12");
    task["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "jira"});
    fixture.created(&task).await?;
    fixture.fail("jira-abc-12").await?;
    let item = fixture.await_open("abc-12").await?;
    ensure!(item.spec.key == "jira/abc-12" && item.name_any().starts_with("jira-abc-12-"));
    Ok(())
}

#[tokio::test]
async fn ticks_share_one_work_item_by_item_key_and_a_denied_tick_is_lost() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 2, "itemKey": "{{ spawner.metadata.name }}"}});
    let fixture = governed("ticks", spec).await?;
    let when = json!({"cron": {"schedule": "0 3 * * *"}});
    fixture.spawner("nightly", &when, &json!({})).await?;
    let key = fixture.key("nightly");
    let now = jiff::Timestamp::now();
    let tick = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
    let name = |at: jiff::Timestamp| format!("nightly-{}", at.strftime("%Y%m%d-%H%M"));
    for days in [1, 2] {
        fixture.standin.tick(&key, tick(days)).await?;
        fixture.fail(&name(tick(days))).await?;
    }
    fixture.await_open("nightly").await?;
    let lost = fixture.standin.tick(&key, tick(3)).await;
    let told = lost.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(
        told.contains("item nightly failed 2 times in a row (limit 2)"),
        "{told}"
    );
    ensure!(fixture.tasks().get_opt(&name(tick(3))).await?.is_none());
    Ok(())
}
