//! What resets a tripped item.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use kelos_standin::Outcome;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{WorkItem, WorkItemStatus, keys, work_item::Breaker};
use taskgate_e2e::{KelosFixture, PATIENCE, await_gone, await_object, breaker, eventually, failures, never};

use crate::support::{governed, limit};

/// Item 42, tripped by one failure; the fixture, the UID of the tombstone, and the WorkItem.
async fn tripped(hint: &str) -> anyhow::Result<(KelosFixture<'static>, String, WorkItem)> {
    let fixture = governed(hint, limit(1)).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    let uid = fixture.fail("fixer-42").await?;
    let item = fixture.await_open("42").await?;
    Ok((fixture, uid, item))
}

#[tokio::test]
async fn deleting_the_tombstone_resets_and_one_new_task_follows() -> anyhow::Result<()> {
    let (fixture, uid, _) = tripped("tombstone").await?;
    fixture.tasks().delete("fixer-42", &DeleteParams::default()).await?;
    fixture.await_next_task("fixer-42", &uid).await?;
    let item = fixture
        .await_work_item("42", "is reset", |item| failures(item) == 0)
        .await?;
    let reset = item.status.and_then(|status| status.last_reset);
    ensure!(reset.is_some_and(|reset| reset.reason == "TombstoneDeleted" && reset.task_uid == Some(uid)));
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn deleting_the_work_item_resets() -> anyhow::Result<()> {
    let (fixture, uid, item) = tripped("memory").await?;
    fixture.kubectl(["delete", "wi", &item.name_any()]).await?.stdout_ok()?;
    fixture.await_next_task("fixer-42", &uid).await?;
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn a_trigger_comment_resets() -> anyhow::Result<()> {
    let fixture = governed("comment", limit(1)).await?;
    fixture.repo().issue(42).comment("human", "/kelos");
    let when = json!({"githubIssues": {"pollInterval": "1s", "commentPolicy": {"triggerComment": "/kelos"}}});
    fixture.spawner("fixer", &when, &json!({})).await?;
    let uid = fixture.fail("fixer-42").await?;
    fixture.await_open("42").await?;
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5);
    fixture.repo().issue(42).comment_at("human", "/kelos", later);
    fixture.await_next_task("fixer-42", &uid).await.map(drop)
}

#[tokio::test]
async fn a_trigger_comment_resets_as_often_as_it_comes() -> anyhow::Result<()> {
    let fixture = governed("comments", limit(1)).await?;
    fixture.repo().issue(42).comment("human", "/kelos");
    let when = json!({"githubIssues": {"pollInterval": "1s", "commentPolicy": {"triggerComment": "/kelos"}}});
    fixture.spawner("fixer", &when, &json!({})).await?;
    let mut uid = fixture.fail("fixer-42").await?;
    for round in 1..=2 {
        fixture.await_open("42").await?;
        // Later than the Task's end, whose time has whole seconds; and over before the next Task ends.
        let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
        fixture.repo().issue(42).comment_at("human", "/kelos", later);
        fixture.await_next_task("fixer-42", &uid).await?;
        eventually("the comment lies in the past", PATIENCE, || async {
            ensure!(jiff::Timestamp::now() > later + jiff::SignedDuration::from_secs(1));
            Ok(())
        })
        .await?;
        let item = fixture
            .await_work_item("42", "is reset", |item| failures(item) == 0)
            .await?;
        let reset = item.status.and_then(|status| status.last_reset);
        ensure!(reset.is_some_and(|reset| reset.task_uid == Some(uid)), "round {round}");
        uid = fixture.fail("fixer-42").await?;
    }
    let item = fixture.await_open("42").await?;
    let attempts = item.status.map(|status| status.attempts.len());
    ensure!(attempts == Some(3), "{attempts:?}");
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

/// Kelos takes `AlreadyExists` for success, and a denial for a failed cycle.
#[tokio::test]
async fn a_create_beside_the_tombstone_of_the_same_spawner_is_no_denial() -> anyhow::Result<()> {
    let (fixture, ..) = tripped("taken").await?;
    let mut task = fixture
        .stored("tasks.kelos.dev", "fixer-42")
        .await?
        .context("the tombstone")?;
    for field in ["uid", "resourceVersion", "creationTimestamp", "finalizers"] {
        task["metadata"][field] = Value::Null;
    }
    let mut foreign = task.clone();
    foreign["metadata"]["ownerReferences"] = Value::Null;
    let answer = fixture.create(&task).await?.stderr_failed()?;
    ensure!(answer.contains("AlreadyExists"), "{answer}");
    let answer = fixture.create(&foreign).await?.stderr_failed()?;
    ensure!(answer.contains("denied the request"), "{answer}");
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn an_item_without_tasks_follows_the_policy_too() -> anyhow::Result<()> {
    let (fixture, _, item) = tripped("reassess").await?;
    // Deleting the last Task is no reset: no policy governs it any more.
    fixture.kubectl(["delete", "taskpolicy", "agents"]).await?.stdout_ok()?;
    fixture
        .await_task("fixer-42", "is released", |task| {
            task.finalizers().iter().all(|finalizer| finalizer != keys::ACCOUNTING)
        })
        .await?;
    fixture.repo().issue(42).close();
    fixture.tasks().delete("fixer-42", &DeleteParams::default()).await?;
    await_gone(&fixture.tasks(), "fixer-42").await?;
    let items = fixture.work_items();
    let name = item.name_any();
    await_object(&items, &name, "is closed: no policy governs it", |item| {
        breaker(item) == Some(Breaker::Closed) && failures(item) == 1
    })
    .await?;
    // None of this depends on the breaker's state.
    let condition = json!({
        "type": "Noted", "status": "True", "reason": "Manual", "message": "kept", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    let as_taskgate = Api::<WorkItem>::namespaced(fixture.cp.client_as_taskgate(), fixture.ns.name());
    let before = without_breaker(&as_taskgate.patch_status(&name, &PatchParams::default(), &patch).await?);
    let attempt = &before.attempts[0];
    ensure!(attempt.name == "fixer-42" && attempt.reason.is_some() && attempt.start_time.is_some());
    fixture.policy(limit(1)).await?;
    await_object(&items, &name, "is open again", |item| {
        breaker(item) == Some(Breaker::Open)
    })
    .await?;
    fixture.policy(limit(2)).await?;
    let closed = await_object(&items, &name, "is closed again", |item| {
        breaker(item) == Some(Breaker::Closed)
    })
    .await?;
    ensure!(without_breaker(&closed) == before, "{:?}\n{before:?}", closed.status);
    let before = items.get(&name).await?.resource_version();
    never("a further write", Duration::from_secs(5), || async {
        let now = items.get(&name).await?.resource_version();
        Ok((now != before).then_some(now))
    })
    .await
}

/// A WorkItem's status without the breaker's state.
fn without_breaker(item: &WorkItem) -> WorkItemStatus {
    WorkItemStatus {
        breaker: None,
        opened_at: None,
        reason: None,
        ..item.status.clone().unwrap_or_default()
    }
}

#[tokio::test]
async fn a_work_item_that_is_being_deleted_is_awaited() -> anyhow::Result<()> {
    let fixture = governed("going", limit(2)).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    let task = fixture.await_next_task("fixer-42", "").await?;
    let name = task.labels()[keys::WORK_ITEM].as_str();
    let item = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem",
        "metadata": {"name": name, "finalizers": ["example.com/keeps"]},
        "spec": {"key": "fixer/42", "item": "42", "spawner": "fixer"},
    });
    fixture.apply_yaml(&item.to_string()).await?;
    fixture
        .kubectl(["delete", "wi", name, "--wait=false"])
        .await?
        .stdout_ok()?;
    let mark = fixture.cp.audit().mark()?;
    let outcome = Outcome::failed_at_once();
    fixture.finish("fixer-42", outcome).await?;
    fixture.await_task_phase("fixer-42", "Failed").await?;
    never("a request to create another one", Duration::from_secs(4), || async {
        let events = fixture.cp.audit().since(mark).await?.into_iter();
        let mut made = events.filter(|event| {
            let object = &event.object_ref;
            event.verb == "create" && object.resource == "workitems" && object.namespace == fixture.ns.name()
        });
        Ok(made.next())
    })
    .await?;
    let no_finalizer = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let items = fixture.work_items();
    items.patch(name, &PatchParams::default(), &no_finalizer).await?;
    fixture
        .await_work_item("42", "is recorded", |item| failures(item) == 1)
        .await
        .map(drop)
}

#[tokio::test]
async fn the_cost_of_a_run_is_added_when_kelos_writes_it_late() -> anyhow::Result<()> {
    let fixture = governed("late", limit(1)).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    fixture.await_next_task("fixer-42", "").await?;
    let outcome = Outcome::failed_at_once();
    fixture.finish("fixer-42", outcome).await?;
    let item = fixture.await_open("42").await?;
    ensure!(item.status.is_some_and(|status| status.total_cost_usd.is_none()));
    let usage = Patch::Merge(json!({"status": {"usage": {"costUSD": "0.25", "inputTokens": 10}}}));
    fixture
        .tasks()
        .patch_status("fixer-42", &PatchParams::default(), &usage)
        .await?;
    let item = fixture
        .await_work_item("42", "has its cost", |item| {
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
    let (fixture, _, item) = tripped("status").await?;
    let patch = json!({"status": {"consecutiveFailures": 0, "breaker": "Closed"}});
    let items = fixture.work_items();
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
    let (fixture, uid, item) = tripped("annotated").await?;
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
    let forged = fixture.kubectl(forged.into_iter().chain(alice)).await?.stdout_ok()?;
    ensure!(!forged.contains("taskgate.dev/reset-by"), "{forged}");
    let ask = [
        "annotate",
        "wi",
        &name,
        "taskgate.dev/reset=fixed",
        "taskgate.dev/reset-by=bob",
    ];
    fixture.kubectl(ask.into_iter().chain(alice)).await?.stdout_ok()?;
    fixture.await_next_task("fixer-42", &uid).await?;
    let item = fixture
        .await_work_item("42", "is reset, and the annotations are gone", |item| {
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
    fixture
        .await_event(
            &name,
            "CircuitReset",
            &["1 failure", "reset, asked for by alice: fixed"],
        )
        .await?;
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}

#[tokio::test]
async fn deleting_the_policy_removes_the_finalizers() -> anyhow::Result<()> {
    let (fixture, uid, _) = tripped("policy").await?;
    fixture.kubectl(["delete", "taskpolicy", "agents"]).await?.stdout_ok()?;
    fixture
        .await_task("fixer-42", "is released", |task| {
            task.finalizers()
                .iter()
                .all(|finalizer| finalizer != taskgate_api::keys::ACCOUNTING)
        })
        .await?;
    fixture.tasks().delete("fixer-42", &DeleteParams::default()).await?;
    fixture.await_next_task("fixer-42", &uid).await.map(drop)
}

#[tokio::test]
async fn raising_the_limit_takes_effect_at_once() -> anyhow::Result<()> {
    let fixture = governed("raise", limit(1)).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", Some(0)).await?;
    let uid = fixture.fail("fixer-42").await?;
    fixture.await_open("42").await?;
    fixture.policy(limit(3)).await?;
    fixture.await_next_task("fixer-42", &uid).await.map(drop)
}

#[tokio::test]
async fn deleting_a_namespace_finishes() -> anyhow::Result<()> {
    let (fixture, _, _) = tripped("namespace").await?;
    let name = fixture.ns.name().to_owned();
    fixture
        .cp
        .kubectl(["delete", "namespace", &name, "--wait=false"])
        .await?
        .stdout_ok()?;
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(fixture.cp.client());
    eventually("the namespace is gone", PATIENCE, || async {
        let left = namespaces.get_opt(&name).await?;
        ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn deleting_a_spawner_deletes_its_tasks_and_work_items() -> anyhow::Result<()> {
    let (fixture, _, item) = tripped("spawner").await?;
    fixture
        .kubectl(["delete", "taskspawner", "fixer", "--wait=false"])
        .await?
        .stdout_ok()?;
    await_gone(&fixture.tasks(), "fixer-42").await?;
    await_gone(&fixture.work_items(), &item.name_any()).await
}

#[tokio::test]
async fn a_task_deleted_while_it_runs_is_released_at_once() -> anyhow::Result<()> {
    let fixture = governed("running", limit(1)).await?;
    fixture.repo().issue(3);
    fixture.issue_spawner("fixer", None).await?;
    let first = fixture.await_next_task("fixer-3", "").await?;
    fixture.tasks().delete("fixer-3", &DeleteParams::default()).await?;
    fixture
        .await_next_task("fixer-3", &first.uid().unwrap_or_default())
        .await?;
    let item = fixture.await_work_item("3", "is there", |_| true).await?;
    ensure!(failures(&item) == 0);
    ensure!(fixture.failed_cycles("fixer") == 0);
    Ok(())
}
