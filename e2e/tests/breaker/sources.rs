//! Each source of Kelos, and what an item is there (kelos §3, §5).

use anyhow::ensure;
use kelos_standin::{Delivered, Delivery};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::keys;

use crate::world::{World, by_hand, limit};

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

async fn delivered(world: &World, spawner: &str, event: &Delivery) -> anyhow::Result<String> {
    match world.standin.deliver(&world.key(spawner), event).await? {
        Delivered::Created(name) => Ok(name),
        other => anyhow::bail!("{other:?}"),
    }
}

/// Kelos' server answers 500, and says why.
async fn denied(world: &World, spawner: &str, event: &Delivery) -> anyhow::Result<String> {
    let answer = world.standin.deliver(&world.key(spawner), event).await;
    match answer {
        Err(error) => Ok(error.to_string()),
        Ok(other) => anyhow::bail!("it passed: {other:?}"),
    }
}

/// A pushed spawner whose Tasks carry these annotations.
async fn pushed(world: &World, name: &str, when: Value, annotations: Value) -> anyhow::Result<()> {
    let spawner = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": name},
        "spec": {"when": when, "taskTemplate": {
            "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"},
            "promptTemplate": "fix {{.Title}}", "metadata": {"annotations": annotations},
        }},
    });
    world.ns.apply_yaml(&spawner.to_string()).await
}

#[tokio::test]
async fn a_github_webhook_that_reports_has_one_item_per_issue() -> anyhow::Result<()> {
    let world = World::governed("hook", limit(1)).await?;
    let when = json!({"githubWebhook": {"events": ["issues", "issue_comment"], "reporting": {"enabled": true}}});
    pushed(&world, "hook", when, json!({})).await?;
    let first = delivered(&world, "hook", &event("issues", "d-1", "42")).await?;
    world.fail(&first).await?;
    world.open("acme/shop#42").await?;
    let told = denied(&world, "hook", &event("issue_comment", "d-2", "42")).await?;
    ensure!(told.contains("item acme/shop#42 failed once (limit 1)"), "{told}");
    delivered(&world, "hook", &event("issue_comment", "d-3", "43"))
        .await
        .map(drop)
}

#[tokio::test]
async fn deliveries_that_tell_nothing_are_items_of_their_own_and_the_template_may_tell() -> anyhow::Result<()> {
    let world = World::governed("pushed", limit(1)).await?;
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
        pushed(&world, spawner, when.clone(), json!({})).await?;
        let first = delivered(&world, spawner, &event(kind, "d-1", "X-1")).await?;
        let item = first.trim_start_matches(spawner).trim_start_matches('-').to_owned();
        ensure!(item.starts_with(kind) && item.len() == kind.len() + 13, "{first}");
        world.fail(&first).await?;
        world.open(&item).await?;
        // Another delivery about the same thing: nothing ties the two together (kelos T17).
        delivered(&world, spawner, &event(kind, "d-2", "X-1")).await?;
        // The user can: Kelos renders annotations.
        let tied = format!("{spawner}-tied");
        let stated = json!({(keys::ITEM): format!("{spawner}/{{{{.ID}}}}")});
        pushed(&world, &tied, when, stated).await?;
        let first = delivered(&world, &tied, &event(kind, "d-3", "X-1")).await?;
        world.fail(&first).await?;
        world.open(&format!("{spawner}/X-1")).await?;
        let told = denied(&world, &tied, &event(kind, "d-4", "X-1")).await?;
        ensure!(told.contains(&format!("item {spawner}/X-1 failed once")), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn a_jira_key_is_the_item() -> anyhow::Result<()> {
    let world = World::governed("jira", limit(1)).await?;
    // Jira is polled; its Tasks are named by the key, and nothing is stamped on them (kelos §3).
    let mut task = by_hand("tracker-abc-12", None);
    task["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "tracker"});
    world.create(&task, false).await?.stdout_ok()?;
    world.fail("tracker-abc-12").await?;
    let item = world.open("abc-12").await?;
    ensure!(item.spec.key == "tracker/abc-12" && item.name_any().starts_with("tracker-abc-12-"));
    Ok(())
}

#[tokio::test]
async fn ticks_share_one_memory_by_item_key_and_a_denied_tick_is_lost() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 2, "itemKey": "{{ spawner.metadata.name }}"}});
    let world = World::governed("ticks", spec).await?;
    let when = json!({"cron": {"schedule": "0 3 * * *"}});
    world.spawner_when("nightly", when, None).await?;
    let key = world.key("nightly");
    let now = jiff::Timestamp::now();
    let tick = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
    let name = |at: jiff::Timestamp| format!("nightly-{}", at.strftime("%Y%m%d-%H%M"));
    for days in [1, 2] {
        world.standin.tick(&key, tick(days)).await?;
        world.fail(&name(tick(days))).await?;
    }
    world.open("nightly").await?;
    let lost = world.standin.tick(&key, tick(3)).await;
    let told = lost.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(
        told.contains("item nightly failed 2 times in a row (limit 2)"),
        "{told}"
    );
    ensure!(world.tasks().get_opt(&name(tick(3))).await?.is_none());
    Ok(())
}
