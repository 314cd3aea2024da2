//! What is odd, late, or half there.

use std::{sync::LazyLock, time::Duration};

use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use kelos_standin::{CRDS, Outcome};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use taskgate_api::{WorkItem, keys, work_item::Breaker};
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, Shared, await_gone, await_object, eventually, never};
use tokio::sync::OnceCell;

use crate::world::{World, breaker, by_hand, failures, limit};

/// Kelos' CRDs, of a Kelos whose TaskSpawner has no conditions.
static WITHOUT_CONDITIONS: LazyLock<String> = LazyLock::new(|| {
    let head = "              conditions:\n                type: array\n";
    let (before, after) = CRDS.rsplit_once("kind: TaskSpawner").expect("there is a TaskSpawner");
    let gone = after.replacen(
        head,
        "              conditionsOfAnotherKelos:\n                type: array\n",
        1,
    );
    assert_ne!(after, gone, "the CRD has changed");
    format!("{before}kind: TaskSpawner{gone}")
});
/// With room for three WorkItems in a namespace.
static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(WITHOUT_CONDITIONS.as_str()));
static GATE: OnceCell<Gate> = OnceCell::const_new();

async fn odd(hint: &str, spec: serde_json::Value) -> anyhow::Result<World> {
    let cp = PLANE.get().await?;
    let start = || Gate::builder().serve_flag("--work-items-per-namespace=3").start(cp);
    let gate = GATE.get_or_try_init(start).await?;
    World::on(cp, gate, hint, spec).await
}

async fn items(world: &World) -> anyhow::Result<Vec<String>> {
    let items = world.ns.api::<WorkItem>().list(&ListParams::default()).await?;
    let mut items: Vec<_> = items.items.into_iter().map(|item| item.spec.item).collect();
    items.sort();
    Ok(items)
}

#[tokio::test]
async fn a_namespace_that_is_full_forgets_what_failed_the_longest_ago_and_never_silently_what_is_open()
-> anyhow::Result<()> {
    let world = odd("full", limit(2)).await?;
    let end = async |task: &str, item: &str, fails: bool| {
        world.create(&by_hand(task, Some(item)), false).await?.stdout_ok()?;
        if fails {
            world.fail(task).await?
        } else {
            world.succeed(task).await?
        };
        anyhow::Ok(())
    };
    let forget_task = async |task: &str| {
        world.ns.kubectl(["delete", "task", task]).await?.stdout_ok()?;
        await_gone(&world.tasks(), task).await
    };
    // Two that are open, and one that is well.
    for item in ["one", "two"] {
        end(&format!("{item}-1"), item, true).await?;
        end(&format!("{item}-2"), item, true).await?;
        world.open(item).await?;
    }
    end("well", "well", false).await?;
    world.item("well", "is there", |_| true).await?;
    forget_task("well").await?;
    end("more", "more", false).await?;
    ensure!(items(&world).await? == ["more", "one", "two"]);
    let open = || async {
        let metrics = world.gate.metrics().await?;
        anyhow::Ok(
            metrics
                .value("taskgate_open_items_evicted_total", &[])
                .unwrap_or_default(),
        )
    };
    let before = open().await?;
    // Now all of them are open: the one whose last failure is the longest ago goes, and it is said.
    let victim = world.open("one").await?.name_any();
    end("more-2", "more", true).await?;
    end("more-3", "more", true).await?;
    world.open("more").await?;
    end("last", "last", true).await?;
    ensure!(items(&world).await? == ["last", "more", "two"]);
    world
        .told(&victim, "WorkItemEvicted", &["this tripped item was deleted"])
        .await?;
    ensure!(open().await? > before);
    Ok(())
}

#[tokio::test]
async fn a_kelos_without_conditions_is_told_of_once_and_nothing_fails() -> anyhow::Result<()> {
    let world = odd("conditionless", limit(1)).await?;
    for (spawner, number) in [("one", 1), ("two", 2)] {
        world.repo().issue(number).labels([spawner]);
        let when = json!({"githubIssues": {"pollInterval": "1s", "labels": [spawner]}});
        world.spawner_when(spawner, when, None).await?;
        world.fail(&format!("{spawner}-{number}")).await?;
        world.open(&number.to_string()).await?;
    }
    let complaints = || {
        let log = world.gate.process().log()?;
        anyhow::Ok(log.lines().filter(|line| line.contains("keeps no conditions")).count())
    };
    eventually("it is said", PATIENCE, || async {
        ensure!(complaints()? == 1);
        Ok(())
    })
    .await?;
    never(
        "a second complaint, or a failed cycle",
        Duration::from_secs(15),
        || async {
            let failed = world.failed_cycles("one") + world.failed_cycles("two");
            let complaints = complaints()?;
            Ok((complaints != 1 || failed > 0).then_some((complaints, failed)))
        },
    )
    .await
}

#[tokio::test]
async fn two_spawners_that_share_an_item_share_its_memory() -> anyhow::Result<()> {
    let world = World::governed("shared", limit(2)).await?;
    let template = |name: &str| {
        json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": name},
            "spec": {"when": {"githubIssues": {"pollInterval": "1s"}}, "taskTemplate": {
                "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"},
                "promptTemplate": "fix {{.Number}}", "metadata": {"annotations": {"taskgate.dev/item": "issue-{{.Number}}"}},
            }},
        })
    };
    world.repo().issue(42);
    world.ns.apply_yaml(&template("a").to_string()).await?;
    world.next("a-42", "").await?;
    world.ns.apply_yaml(&template("b").to_string()).await?;
    world.next("b-42", "").await?;
    world.fail("a-42").await?;
    world.fail("b-42").await?;
    let item = world.open("issue-42").await?;
    let status = item.status.clone().unwrap_or_default();
    ensure!(failures(&item) == 2 && status.attempts.len() == 2, "{status:?}");
    // The memory belongs to neither: one of them may go.
    ensure!(item.owner_references().is_empty() && item.spec.spawner.is_none());
    ensure!(world.failed_cycles("a") == 0 && world.failed_cycles("b") == 0);
    Ok(())
}

#[tokio::test]
async fn an_id_of_ten_kilobytes_is_an_item_like_any_other() -> anyhow::Result<()> {
    let world = World::governed("long", limit(1)).await?;
    let ids = ["a", "b"].map(|end| format!("{}{end}", "x".repeat(10_000)));
    let [one, two] = &ids;
    world.create(&by_hand("one", Some(one)), false).await?.stdout_ok()?;
    world.fail("one").await?;
    let again = world
        .create(&by_hand("again", Some(one)), true)
        .await?
        .stderr_failed()?;
    ensure!(
        again.contains("failed once (limit 1)") && again.len() < 1_000,
        "{again}"
    );
    // It differs at its very end.
    world.create(&by_hand("two", Some(two)), false).await?.stdout_ok()?;
    let items = world.ns.api::<WorkItem>().list(&ListParams::default()).await?;
    let [item] = items.items.as_slice() else {
        anyhow::bail!("{items:?}")
    };
    ensure!(breaker(item) == Some(Breaker::Open) && item.spec.key.len() < 600);
    Ok(())
}

#[tokio::test]
async fn a_memory_that_is_deleted_while_its_task_runs_starts_anew() -> anyhow::Result<()> {
    let world = World::governed("halfway", limit(3)).await?;
    world
        .create(&by_hand("first", Some("epic")), false)
        .await?
        .stdout_ok()?;
    world.fail("first").await?;
    let old = world.item("epic", "one failure", |item| failures(item) == 1).await?;
    world
        .create(&by_hand("second", Some("epic")), false)
        .await?
        .stdout_ok()?;
    world.next("second", "").await?;
    world.ns.kubectl(["delete", "wi", &old.name_any()]).await?.stdout_ok()?;
    world.fail("second").await?;
    let new = world.item("epic", "is new", |item| item.uid() != old.uid()).await?;
    let status = new.status.clone().unwrap_or_default();
    ensure!(failures(&new) == 1 && status.attempts.len() == 1, "{status:?}");
    Ok(())
}

/// What admission would have taken off, on a Task that taskgate's own account creates: as a successor, as it creates no other.
#[tokio::test]
async fn a_task_that_says_it_is_recorded_is_counted_all_the_same() -> anyhow::Result<()> {
    let world = World::governed("recorded", limit(1)).await?;
    let as_taskgate = Api::<kelos_standin::types::Task>::namespaced(world.cp.client_as_taskgate(), world.ns.name());
    let mut forged = by_hand("forged", Some("epic"));
    forged["metadata"]["annotations"][keys::RETRY_OF] = json!("00000000-2222-4333-8444-555555555555");
    forged["metadata"]["annotations"][keys::RECORDED] = json!("11111111-2222-4333-8444-555555555555");
    as_taskgate
        .create(&PostParams::default(), &serde_json::from_value(forged)?)
        .await?;
    world.fail("forged").await?;
    world.open("epic").await.map(drop)
}

#[tokio::test]
async fn whatever_a_run_is_said_to_cost_its_end_is_recorded() -> anyhow::Result<()> {
    let world = World::governed("costs", limit(1)).await?;
    world.create(&by_hand("dear", Some("epic")), false).await?.stdout_ok()?;
    world.next("dear", "").await?;
    let outcome = Outcome::failed_at_once();
    world.agents.finish(world.ns.name(), "dear", outcome).await?;
    // Kelos has written the end, and writes no more.
    world.open("epic").await?;
    let usage = json!({"status": {"usage": {"costUSD": "9000000000000000", "inputTokens": i64::MAX, "outputTokens": i64::MAX}}});
    world
        .tasks()
        .patch_status("dear", &PatchParams::default(), &Patch::Merge(usage))
        .await?;
    let item = world
        .item("epic", "has its cost", |item| {
            item.status
                .as_ref()
                .is_some_and(|status| status.total_cost_usd.is_some())
        })
        .await?;
    ensure!(failures(&item) == 1, "{:?}", item.status);
    let cost = item.status.and_then(|status| status.total_cost_usd);
    ensure!(cost.as_deref() == Some("1000000000000.00"), "{cost:?}");
    Ok(())
}

#[tokio::test]
async fn an_end_in_the_future_or_none_at_all_keeps_nothing_waiting() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "resetAfter": "5s"}});
    let world = World::governed("clocks", spec).await?;
    for task in ["future", "never"] {
        world.create(&with_ttl(task), false).await?.stdout_ok()?;
        world.next(task, "").await?;
    }
    // What a Kelos with a wrong clock writes, and what a Kelos that forgot writes (kelos §6.2).
    let (ns, jobs) = (world.ns.name().to_owned(), world.ns.api::<Job>());
    let world = world
        .without_kelos(async |tasks, agents| {
            for (task, completion) in [("future", json!("2999-01-01T00:00:00Z")), ("never", json!(null))] {
                // The Job fails as well, or Kelos would call the Task running again.
                agents.finish(&ns, task, Outcome::failed_at_once()).await?;
                await_object(&jobs, task, "has failed", |job| {
                    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
                    conditions.into_iter().any(|condition| condition.type_ == "Failed")
                })
                .await?;
                let status = json!({"phase": "Failed", "completionTime": completion, "message": "Task failed"});
                let patch = Patch::Merge(json!({"status": status}));
                tasks.patch_status(task, &PatchParams::default(), &patch).await?;
            }
            Ok(())
        })
        .await?;
    for task in ["future", "never"] {
        let item = world.item(task, "is open", |item| failures(item) == 1).await?;
        let attempt = item.status.and_then(|status| status.attempts.first().cloned());
        let ended = attempt.and_then(|attempt| attempt.completion_time).map(|time| time.0);
        ensure!(
            ended.is_some_and(|ended| ended <= jiff::Timestamp::now()),
            "{task}: {ended:?}"
        );
    }
    // resetAfter is over in time, and the tombstones make room for a probe.
    for task in ["future", "never"] {
        await_gone(&world.tasks(), task).await?;
    }
    Ok(())
}

/// A Task with an item of its own and a TTL.
fn with_ttl(name: &str) -> serde_json::Value {
    let mut task = by_hand(name, Some(name));
    task["spec"]["ttlSecondsAfterFinished"] = 1.into();
    task
}
