//! The denial net: a Task for an item that failed too often. The memory is written by hand here.

use anyhow::ensure;
use serde_json::{Value, json};
use taskgate_e2e::{PATIENCE, eventually};
use taskgate_policy::ItemIdentity;

use crate::world::{World, task};

fn limit(limit: u32) -> Value {
    json!({"failurePolicy": {"maxRetriesPerItem": limit}})
}

fn of_item(name: &str, item: &str) -> Value {
    let mut task = task(name);
    task["metadata"]["annotations"] = json!({"taskgate.dev/item": item});
    task
}

/// Writes the memory of `item` and waits until taskgate has it.
async fn remember(world: &World, item: &str, status: &Value) -> anyhow::Result<String> {
    let identity = ItemIdentity {
        key: item.to_owned(),
        item: item.to_owned(),
        spawner: None,
    };
    let name = identity.work_item_name();
    let memory = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": {"name": name},
        "spec": {"key": item, "item": item},
    });
    world.ns.apply_yaml(&memory.to_string()).await?;
    let patch = json!({"status": status}).to_string();
    let args = [
        "patch",
        "workitem",
        &name,
        "--subresource=status",
        "--as",
        taskgate_e2e::GATE_USER,
        "--as-group=system:masters",
        "--type=merge",
        "-p",
        &patch,
    ];
    world.ns.kubectl(args).await?.stdout_ok()?;
    Ok(name)
}

fn three_failures() -> Value {
    json!({"breaker": "Open", "consecutiveFailures": 3, "openedAt": "2026-11-20T10:00:00Z", "totalCostUSD": "1.50"})
}

async fn until_denied(world: &World, item: &str) -> anyhow::Result<String> {
    eventually("a further Task is denied", PATIENCE, || async {
        let args = ["create", "--dry-run=server", "-f-"];
        world
            .ns
            .kubectl_with_input(args, &of_item("probe", item).to_string())
            .await?
            .stderr_failed()
    })
    .await
}

#[tokio::test]
async fn an_open_item_gets_no_further_task_and_the_message_says_all() -> anyhow::Result<()> {
    let world = World::governed("open", limit(3)).await?;
    let name = remember(&world, "fixer/42", &three_failures()).await?;
    let told = until_denied(&world, "fixer/42").await?;
    let expected = format!(
        "Error from server (Forbidden): error when creating \"STDIN\": admission webhook \"validate.tasks.taskgate.dev\" denied \
         the request: taskgate: item fixer/42 failed 3 times in a row (limit 3) since 2026-11-20T10:00Z, cost $1.50, by \
         TaskPolicy/agents; reset: kubectl -n {ns} delete wi {name}; why: taskgate explain item/{name} -n {ns}",
        ns = world.ns.name()
    );
    ensure!(told.trim() == expected, "{told}\n{expected}");
    world.create(&of_item("real", "fixer/42")).await?.stderr_failed()?;
    world.create(&of_item("other", "fixer/43")).await?.stdout_ok()?;
    world.create(&task("no-item")).await?.stdout_ok().map(drop)
}

#[tokio::test]
async fn a_spawners_task_is_known_by_its_number_or_its_name() -> anyhow::Result<()> {
    let world = World::governed("lineage", limit(3)).await?;
    remember(&world, "fixer/42", &three_failures()).await?;
    until_denied(&world, "fixer/42").await?;
    let labels = json!({"kelos.dev/taskspawner": "fixer"});
    let mut named = task("fixer-42");
    named["metadata"]["labels"] = labels.clone();
    let mut numbered = task("any-name");
    numbered["metadata"]["labels"] = labels;
    numbered["metadata"]["annotations"] = json!({"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"});
    for denied in [named, numbered] {
        let told = world.create(&denied).await?.stderr_failed()?;
        ensure!(told.contains("failed 3 times in a row"), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn deleting_the_memory_lets_tasks_through_again() -> anyhow::Result<()> {
    let world = World::governed("reset", limit(3)).await?;
    let name = remember(&world, "a", &three_failures()).await?;
    until_denied(&world, "a").await?;
    world.ns.kubectl(["delete", "wi", &name]).await?.stdout_ok()?;
    eventually("a Task passes again", PATIENCE, || async {
        world.dry_run(&of_item("probe", "a")).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn changing_the_limit_takes_effect_at_once_in_both_directions() -> anyhow::Result<()> {
    let world = World::governed("limits", limit(3)).await?;
    remember(&world, "a", &three_failures()).await?;
    until_denied(&world, "a").await?;
    for (spec, passes) in [(limit(5), true), (limit(2), false), (limit(0), true), (limit(3), false)] {
        world.policy("agents", spec.clone()).await?;
        ensure!(world.dry_run(&of_item("probe", "a")).await.is_ok() == passes, "{spec}");
    }
    world
        .ns
        .kubectl(["delete", "taskpolicy", "agents"])
        .await?
        .stdout_ok()?;
    world.until_policies_are_seen().await?;
    world.dry_run(&of_item("probe", "a")).await.map(drop)
}

#[tokio::test]
async fn observe_and_warn_deny_nothing() -> anyhow::Result<()> {
    let world = World::governed("softly", limit(3)).await?;
    remember(&world, "a", &three_failures()).await?;
    until_denied(&world, "a").await?;
    for mode in ["Observe", "Warn"] {
        world
            .policy(
                "agents",
                json!({"mode": mode, "failurePolicy": {"maxRetriesPerItem": 3}}),
            )
            .await?;
        let output = world.create(&of_item(&mode.to_lowercase(), "a")).await?;
        let warned = output
            .warnings()
            .iter()
            .any(|warning| warning.starts_with("taskgate: would deny: item a failed 3 times"));
        ensure!(warned == (mode == "Warn"), "{mode}: {:?}", output.warnings());
        output.stdout_ok()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_dry_run_gives_the_true_verdict_and_changes_nothing() -> anyhow::Result<()> {
    let world = World::governed(
        "dryrun",
        json!({"metadata": {"labels": {"team": "blue"}}, "failurePolicy": {"maxRetriesPerItem": 3}}),
    )
    .await?;
    remember(&world, "a", &three_failures()).await?;
    until_denied(&world, "a").await?;
    let seen = world.dry_run(&task("fine")).await?;
    ensure!(seen["metadata"]["labels"]["team"] == "blue", "{seen}");
    let mark = world.cp.audit().mark()?;
    for index in 0..20 {
        world.dry_run(&task(&format!("fine-{index}"))).await?;
        let denied = of_item(&format!("denied-{index}"), "a").to_string();
        world
            .ns
            .kubectl_with_input(["create", "--dry-run=server", "-f-"], &denied)
            .await?
            .stderr_failed()?;
    }
    // Other tests write at the same time, so the witness here is who wrote; the revision is watched alone elsewhere.
    let written: Vec<_> = world
        .cp
        .audit()
        .since(mark)
        .await?
        .into_iter()
        .filter(|event| event.is_write() && !event.is_dry_run() && event.user_agent.starts_with("taskgate"))
        .filter(|event| event.object_ref.namespace == world.ns.name())
        .map(|event| event.summary())
        .collect();
    ensure!(written.is_empty(), "{written:?}");
    Ok(())
}

#[tokio::test]
async fn a_memory_with_a_wrong_name_is_refused_with_the_right_one() -> anyhow::Result<()> {
    let world = World::start("misnamed").await?;
    let memory = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": {"name": "mine"},
        "spec": {"key": "fixer/42", "item": "42"},
    });
    let told = world.create(&memory).await?.stderr_failed()?;
    ensure!(told.contains("has to be called fixer-42-e13156ca85"), "{told}");
    Ok(())
}
