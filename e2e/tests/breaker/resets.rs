//! The ways back.

use std::time::Duration;

use anyhow::ensure;
use kelos_standin::Outcome;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::{WorkItem, WorkItemStatus, keys, work_item::Breaker};
use taskgate_e2e::{PATIENCE, await_gone, await_object, eventually, never};

use crate::world::{World, breaker, failures, limit};

async fn broken(hint: &str) -> anyhow::Result<(World, String, WorkItem)> {
    let world = World::governed(hint, limit(1)).await?;
    world.repo().issue(42);
    world.spawner("fixer", None).await?;
    let uid = world.fail("fixer-42").await?;
    let item = world.open("42").await?;
    Ok((world, uid, item))
}

#[tokio::test]
async fn deleting_the_tombstone_resets_and_one_new_task_follows() -> anyhow::Result<()> {
    let (world, uid, _) = broken("tombstone").await?;
    world.tasks().delete("fixer-42", &DeleteParams::default()).await?;
    world.next("fixer-42", &uid).await?;
    let item = world.item("42", "is reset", |item| failures(item) == 0).await?;
    let reset = item.status.and_then(|status| status.last_reset);
    ensure!(reset.is_some_and(|reset| reset.reason == "TombstoneDeleted" && reset.task_uid == Some(uid)));
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn deleting_the_work_item_resets() -> anyhow::Result<()> {
    let (world, uid, item) = broken("memory").await?;
    world
        .ns
        .kubectl(["delete", "wi", &item.name_any()])
        .await?
        .stdout_ok()?;
    world.next("fixer-42", &uid).await?;
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn a_trigger_comment_resets() -> anyhow::Result<()> {
    let world = World::governed("comment", limit(1)).await?;
    world.repo().issue(42).comment("human", "/kelos");
    let when = json!({"githubIssues": {"pollInterval": "1s", "commentPolicy": {"triggerComment": "/kelos"}}});
    world.spawner_when("fixer", when, None).await?;
    let uid = world.fail("fixer-42").await?;
    world.open("42").await?;
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5);
    world.repo().issue(42).comment_at("human", "/kelos", later);
    world.next("fixer-42", &uid).await.map(drop)
}

#[tokio::test]
async fn a_trigger_comment_resets_as_often_as_it_comes() -> anyhow::Result<()> {
    let world = World::governed("comments", limit(1)).await?;
    world.repo().issue(42).comment("human", "/kelos");
    let when = json!({"githubIssues": {"pollInterval": "1s", "commentPolicy": {"triggerComment": "/kelos"}}});
    world.spawner_when("fixer", when, None).await?;
    let mut uid = world.fail("fixer-42").await?;
    for round in 1..=2 {
        world.open("42").await?;
        // Later than the Task's end, whose time has whole seconds; and over before the next Task ends.
        let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
        world.repo().issue(42).comment_at("human", "/kelos", later);
        world.next("fixer-42", &uid).await?;
        eventually("the comment lies in the past", PATIENCE, || async {
            ensure!(jiff::Timestamp::now() > later + jiff::SignedDuration::from_secs(1));
            Ok(())
        })
        .await?;
        let item = world.item("42", "is reset", |item| failures(item) == 0).await?;
        let reset = item.status.and_then(|status| status.last_reset);
        ensure!(reset.is_some_and(|reset| reset.task_uid == Some(uid)), "round {round}");
        uid = world.fail("fixer-42").await?;
    }
    let item = world.open("42").await?;
    let attempts = item.status.map(|status| status.attempts.len());
    ensure!(attempts == Some(3), "{attempts:?}");
    Ok(())
}

#[tokio::test]
async fn an_item_without_tasks_follows_the_policy_too() -> anyhow::Result<()> {
    let (world, _, item) = broken("reassess").await?;
    // The last Task goes without a reset: nobody watches over it any more.
    world
        .ns
        .kubectl(["delete", "taskpolicy", "agents"])
        .await?
        .stdout_ok()?;
    await_object(&world.tasks(), "fixer-42", "is released", |task| {
        task.finalizers().iter().all(|finalizer| finalizer != keys::ACCOUNTING)
    })
    .await?;
    world.repo().issue(42).close();
    world.tasks().delete("fixer-42", &DeleteParams::default()).await?;
    await_gone(&world.tasks(), "fixer-42").await?;
    let items = world.ns.api::<WorkItem>();
    let name = item.name_any();
    await_object(&items, &name, "is closed: no policy speaks for it", |item| {
        breaker(item) == Some(Breaker::Closed) && failures(item) == 1
    })
    .await?;
    // Of all this the breaker's state says nothing.
    let condition = json!({
        "type": "Noted", "status": "True", "reason": "ByHand", "message": "kept", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    let as_taskgate = Api::<WorkItem>::namespaced(world.cp.client_as_taskgate(), world.ns.name());
    let before = rest(&as_taskgate.patch_status(&name, &PatchParams::default(), &patch).await?);
    let attempt = &before.attempts[0];
    ensure!(attempt.name == "fixer-42" && attempt.reason.is_some() && attempt.start_time.is_some());
    world.policy(limit(1)).await?;
    await_object(&items, &name, "is open again", |item| {
        breaker(item) == Some(Breaker::Open)
    })
    .await?;
    world.policy(limit(2)).await?;
    let closed = await_object(&items, &name, "is closed again", |item| {
        breaker(item) == Some(Breaker::Closed)
    })
    .await?;
    ensure!(rest(&closed) == before, "{:?}\n{before:?}", closed.status);
    let before = items.get(&name).await?.resource_version();
    never("a further write", Duration::from_secs(5), || async {
        let now = items.get(&name).await?.resource_version();
        Ok((now != before).then_some(now))
    })
    .await
}

/// A memory but for the breaker's state.
fn rest(item: &WorkItem) -> WorkItemStatus {
    WorkItemStatus {
        breaker: None,
        opened_at: None,
        reason: None,
        ..item.status.clone().unwrap_or_default()
    }
}

#[tokio::test]
async fn a_memory_that_takes_its_time_to_go_is_waited_for() -> anyhow::Result<()> {
    let world = World::governed("going", limit(2)).await?;
    world.repo().issue(42);
    world.spawner("fixer", None).await?;
    let task = world.next("fixer-42", "").await?;
    let name = task.labels()[keys::WORK_ITEM].as_str();
    let item = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem",
        "metadata": {"name": name, "finalizers": ["example.com/keeps"]},
        "spec": {"key": "fixer/42", "item": "42", "spawner": "fixer"},
    });
    world.ns.apply_yaml(&item.to_string()).await?;
    world
        .ns
        .kubectl(["delete", "wi", name, "--wait=false"])
        .await?
        .stdout_ok()?;
    let mark = world.cp.audit().mark()?;
    let outcome = Outcome::failed_at_once();
    world.agents.finish(world.ns.name(), "fixer-42", outcome).await?;
    await_object(&world.tasks(), "fixer-42", "has failed", |task| {
        task.phase() == "Failed"
    })
    .await?;
    never("another one is tried to be made", Duration::from_secs(4), || async {
        let events = world.cp.audit().since(mark).await?.into_iter();
        let mut made = events.filter(|event| {
            let object = &event.object_ref;
            event.verb == "create" && object.resource == "workitems" && object.namespace == world.ns.name()
        });
        Ok(made.next())
    })
    .await?;
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let items = world.ns.api::<WorkItem>();
    items.patch(name, &PatchParams::default(), &free).await?;
    world
        .item("42", "is recorded", |item| failures(item) == 1)
        .await
        .map(drop)
}

#[tokio::test]
async fn what_a_run_cost_is_added_when_kelos_tells_it_late() -> anyhow::Result<()> {
    let world = World::governed("late", limit(1)).await?;
    world.repo().issue(42);
    world.spawner("fixer", None).await?;
    world.next("fixer-42", "").await?;
    let outcome = Outcome::failed_at_once();
    world.agents.finish(world.ns.name(), "fixer-42", outcome).await?;
    let item = world.open("42").await?;
    ensure!(item.status.is_some_and(|status| status.total_cost_usd.is_none()));
    let usage = Patch::Merge(json!({"status": {"usage": {"costUSD": "0.25", "inputTokens": 10}}}));
    world
        .tasks()
        .patch_status("fixer-42", &PatchParams::default(), &usage)
        .await?;
    let item = world
        .item("42", "has its cost", |item| {
            let status = item.status.as_ref();
            status.is_some_and(|status| status.total_cost_usd.as_deref() == Some("0.25"))
        })
        .await?;
    let attempts = item.status.unwrap_or_default().attempts;
    ensure!(
        attempts.len() == 1 && attempts[0].cost_usd.as_deref() == Some("0.25") && attempts[0].input_tokens == Some(10),
        "{attempts:?}"
    );
    Ok(())
}

#[tokio::test]
async fn only_taskgate_writes_the_status_of_a_work_item() -> anyhow::Result<()> {
    let (world, _, item) = broken("byhand").await?;
    let patch = json!({"status": {"consecutiveFailures": 0, "breaker": "Closed"}});
    let items = world.ns.api::<WorkItem>();
    let written = items
        .patch_status(&item.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await;
    let Err(kube::Error::Api(refused)) = written else {
        anyhow::bail!("it was written: {written:?}")
    };
    let expected = "only taskgate writes the status of a WorkItem; to reset item 42: taskgate reset, annotate the WorkItem \
                    taskgate.dev/reset=<reason>, or delete it";
    ensure!(refused.code == 403 && refused.message.contains(expected), "{refused:?}");
    ensure!(failures(&items.get(&item.name_any()).await?) == 1);
    // What is not its status can be written as ever.
    let note = Patch::Merge(json!({"metadata": {"labels": {"note": "kept"}}}));
    items.patch(&item.name_any(), &PatchParams::default(), &note).await?;
    Ok(())
}

#[tokio::test]
async fn an_annotation_resets_and_admission_records_who_asked() -> anyhow::Result<()> {
    let (world, uid, item) = broken("annotated").await?;
    let name = item.name_any();
    let alice = ["--as=alice", "--as-group=system:masters"];
    let forged = [
        "annotate",
        "wi",
        &name,
        "taskgate.dev/reset-by=bob",
        "--dry-run=server",
        "-ojson",
    ];
    let forged = world.ns.kubectl(forged.into_iter().chain(alice)).await?.stdout_ok()?;
    ensure!(!forged.contains("taskgate.dev/reset-by"), "{forged}");
    let ask = [
        "annotate",
        "wi",
        &name,
        "taskgate.dev/reset=fixed",
        "taskgate.dev/reset-by=bob",
    ];
    world.ns.kubectl(ask.into_iter().chain(alice)).await?.stdout_ok()?;
    world.next("fixer-42", &uid).await?;
    let item = world
        .item("42", "is reset, and nothing is asked any more", |item| {
            let asked = item.annotations().keys().any(|key| key.starts_with(keys::RESET));
            failures(item) == 0 && !asked
        })
        .await?;
    let last = item.status.and_then(|status| status.last_reset);
    ensure!(
        last.as_ref().is_some_and(|last| {
            last.reason == "ResetByUser"
                && last.by.as_deref() == Some("alice")
                && last.message.as_deref() == Some("fixed")
        }),
        "{last:?}"
    );
    world
        .told(
            &name,
            "CircuitReset",
            &["1 failure", "reset, asked for by alice: fixed"],
        )
        .await?;
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn a_policy_that_goes_lets_go_of_everything() -> anyhow::Result<()> {
    let (world, uid, _) = broken("policy").await?;
    world
        .ns
        .kubectl(["delete", "taskpolicy", "agents"])
        .await?
        .stdout_ok()?;
    await_object(&world.tasks(), "fixer-42", "is released", |task| {
        task.finalizers()
            .iter()
            .all(|finalizer| finalizer != taskgate_api::keys::ACCOUNTING)
    })
    .await?;
    world.tasks().delete("fixer-42", &DeleteParams::default()).await?;
    world.next("fixer-42", &uid).await.map(drop)
}

#[tokio::test]
async fn raising_the_limit_takes_effect_at_once() -> anyhow::Result<()> {
    let world = World::governed("raise", limit(1)).await?;
    world.repo().issue(42);
    world.spawner("fixer", Some(0)).await?;
    let uid = world.fail("fixer-42").await?;
    world.open("42").await?;
    world.policy(limit(3)).await?;
    world.next("fixer-42", &uid).await.map(drop)
}

#[tokio::test]
async fn a_namespace_always_goes() -> anyhow::Result<()> {
    let (world, _, _) = broken("namespace").await?;
    let name = world.ns.name().to_owned();
    world
        .cp
        .kubectl(["delete", "namespace", &name, "--wait=false"])
        .await?
        .stdout_ok()?;
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(world.cp.client());
    eventually("the namespace is gone", PATIENCE, || async {
        let left = namespaces.get_opt(&name).await?;
        ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_spawner_always_goes_with_its_tasks_and_memories() -> anyhow::Result<()> {
    let (world, _, item) = broken("spawner").await?;
    world
        .ns
        .kubectl(["delete", "taskspawner", "fixer", "--wait=false"])
        .await?
        .stdout_ok()?;
    await_gone(&world.tasks(), "fixer-42").await?;
    await_gone(&world.ns.api::<WorkItem>(), &item.name_any()).await
}

#[tokio::test]
async fn a_task_deleted_while_it_runs_is_let_go_at_once() -> anyhow::Result<()> {
    let world = World::governed("running", limit(1)).await?;
    world.repo().issue(3);
    world.spawner("fixer", None).await?;
    let first = world.next("fixer-3", "").await?;
    world.tasks().delete("fixer-3", &DeleteParams::default()).await?;
    world.next("fixer-3", &first.uid().unwrap_or_default()).await?;
    let item = world.item("3", "is there", |_| true).await?;
    ensure!(failures(&item) == 0);
    ensure!(world.failed_cycles("fixer") == 0);
    Ok(())
}
