//! Edge cases: a full namespace, another Kelos, long IDs, wrong clocks.

use std::{sync::LazyLock, time::Duration};

use anyhow::ensure;
use kelos_standin::{CRDS, Outcome};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use taskgate_api::{keys, work_item::Breaker};
use taskgate_e2e::{
    ControlPlane, Gate, KelosFixture, PATIENCE, SharedGate, await_gone, await_object, breaker, eventually, failures,
    never,
};

use crate::support::{governed, governed_on, limit, task_of_item};

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
static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(WITHOUT_CONDITIONS.as_str()));

/// Beside a taskgate that keeps three WorkItems per namespace.
async fn three_items(hint: &str, spec: serde_json::Value) -> anyhow::Result<KelosFixture<'static>> {
    let gate = Gate::builder().serve_flag("--work-items-per-namespace=3");
    governed_on(&SHARED, gate, hint, spec).await
}

async fn items(fixture: &KelosFixture<'_>) -> anyhow::Result<Vec<String>> {
    let items = fixture.work_items().list(&ListParams::default()).await?;
    let mut items: Vec<_> = items.items.into_iter().map(|item| item.spec.item).collect();
    items.sort();
    Ok(items)
}

#[tokio::test]
async fn a_full_namespace_evicts_the_oldest_failure_and_records_when_it_was_tripped() -> anyhow::Result<()> {
    let fixture = three_items("full", limit(2)).await?;
    let end = async |task: &str, item: &str, fails: bool| {
        fixture.create(&task_of_item(task, item)).await?.stdout_ok()?;
        if fails {
            fixture.fail(task).await?
        } else {
            fixture.succeed_recorded(task).await?
        };
        anyhow::Ok(())
    };
    let delete_task = async |task: &str| {
        fixture.kubectl(["delete", "task", task]).await?.stdout_ok()?;
        await_gone(&fixture.tasks(), task).await
    };
    // Two that are tripped, and one that succeeded.
    for item in ["one", "two"] {
        end(&format!("{item}-1"), item, true).await?;
        end(&format!("{item}-2"), item, true).await?;
        fixture.await_open(item).await?;
    }
    end("well", "well", false).await?;
    fixture.await_work_item("well", "is there", |_| true).await?;
    delete_task("well").await?;
    end("more", "more", false).await?;
    ensure!(items(&fixture).await? == ["more", "one", "two"]);
    let open = || async {
        let metrics = fixture.gate.metrics().await?;
        anyhow::Ok(
            metrics
                .value("taskgate_open_items_evicted_total", &[])
                .unwrap_or_default(),
        )
    };
    let before = open().await?;
    // Now all of them are tripped: the one whose last failure is the oldest is evicted, with an Event.
    let evicted = fixture.await_open("one").await?.name_any();
    end("more-2", "more", true).await?;
    end("more-3", "more", true).await?;
    fixture.await_open("more").await?;
    end("last", "last", true).await?;
    ensure!(items(&fixture).await? == ["last", "more", "two"]);
    fixture
        .await_event(&evicted, "WorkItemEvicted", &["this tripped item was deleted"])
        .await?;
    ensure!(open().await? > before);
    Ok(())
}

#[tokio::test]
async fn a_kelos_without_conditions_is_logged_once_and_nothing_fails() -> anyhow::Result<()> {
    let fixture = three_items("conditionless", limit(1)).await?;
    for (spawner, number) in [("one", 1), ("two", 2)] {
        fixture.repo().issue(number).labels([spawner]);
        let when = json!({"githubIssues": {"pollInterval": "1s", "labels": [spawner]}});
        fixture.spawner(spawner, &when, &json!({})).await?;
        fixture.fail(&format!("{spawner}-{number}")).await?;
        fixture.await_open(&number.to_string()).await?;
    }
    let warnings = || {
        let log = fixture.gate.process().log()?;
        anyhow::Ok(log.lines().filter(|line| line.contains("keeps no conditions")).count())
    };
    eventually("it is logged", PATIENCE, || async {
        ensure!(warnings()? == 1);
        Ok(())
    })
    .await?;
    never(
        "a second warning, or a failed cycle",
        Duration::from_secs(15),
        || async {
            let failed = fixture.failed_cycles("one") + fixture.failed_cycles("two");
            let warnings = warnings()?;
            Ok((warnings != 1 || failed > 0).then_some((warnings, failed)))
        },
    )
    .await
}

#[tokio::test]
async fn two_spawners_that_share_an_item_share_its_work_item() -> anyhow::Result<()> {
    let fixture = governed("shared", limit(2)).await?;
    let template = |name: &str| {
        json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": name},
            "spec": {"when": {"githubIssues": {"pollInterval": "1s"}}, "taskTemplate": {
                "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"},
                "promptTemplate": "fix {{.Number}}", "metadata": {"annotations": {"taskgate.dev/item": "issue-{{.Number}}"}},
            }},
        })
    };
    fixture.repo().issue(42);
    fixture.apply_yaml(&template("a").to_string()).await?;
    fixture.await_next_task("a-42", "").await?;
    fixture.apply_yaml(&template("b").to_string()).await?;
    fixture.await_next_task("b-42", "").await?;
    fixture.fail("a-42").await?;
    fixture.fail("b-42").await?;
    let item = fixture.await_open("issue-42").await?;
    let status = item.status.clone().unwrap_or_default();
    ensure!(failures(&item) == 2 && status.attempts.len() == 2, "{status:?}");
    // Neither owns the WorkItem: one of them may be deleted.
    ensure!(item.owner_references().is_empty() && item.spec.spawner.is_none());
    ensure!(fixture.failed_cycles("a") == 0 && fixture.failed_cycles("b") == 0);
    // Both list it, and it counts for each.
    let metrics = fixture.gate.metrics().await?;
    for spawner in ["a", "b"] {
        let condition = fixture
            .await_spawner_condition(spawner, "ItemsCircuitBroken", "True")
            .await?;
        ensure!(
            condition["message"] == "1 item skipped due to max retries: issue-42",
            "{condition}"
        );
        let labels = [("namespace", fixture.ns.name()), ("spawner", spawner)];
        let count = metrics.value("kelos_spawner_items_circuit_broken_total", &labels);
        ensure!(count == Some(1.0), "{spawner}: {count:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_id_of_ten_kilobytes_is_an_item_like_any_other() -> anyhow::Result<()> {
    let fixture = governed("long", limit(1)).await?;
    let ids = ["a", "b"].map(|end| format!("{}{end}", "x".repeat(10_000)));
    let [one, two] = &ids;
    fixture.created(&task_of_item("one", one)).await?;
    fixture.fail("one").await?;
    let again = fixture
        .create_dry_run(&task_of_item("again", one))
        .await?
        .stderr_failed()?;
    ensure!(
        again.contains("failed once (limit 1)") && again.len() < 1_000,
        "{again}"
    );
    // It differs at its very end.
    fixture.created(&task_of_item("two", two)).await?;
    let items = fixture.work_items().list(&ListParams::default()).await?;
    let [item] = items.items.as_slice() else {
        anyhow::bail!("{items:?}")
    };
    ensure!(breaker(item) == Some(Breaker::Open) && item.spec.key.len() < 600);
    Ok(())
}

#[tokio::test]
async fn a_work_item_that_is_deleted_while_its_task_runs_starts_anew() -> anyhow::Result<()> {
    let fixture = governed("halfway", limit(3)).await?;
    fixture.created(&task_of_item("first", "epic")).await?;
    fixture.fail("first").await?;
    let old = fixture
        .await_work_item("epic", "one failure", |item| failures(item) == 1)
        .await?;
    fixture.created(&task_of_item("second", "epic")).await?;
    fixture.await_next_task("second", "").await?;
    fixture.kubectl(["delete", "wi", &old.name_any()]).await?.stdout_ok()?;
    fixture.fail("second").await?;
    let new = fixture
        .await_work_item("epic", "is new", |item| item.uid() != old.uid())
        .await?;
    let status = new.status.clone().unwrap_or_default();
    ensure!(failures(&new) == 1 && status.attempts.len() == 1, "{status:?}");
    Ok(())
}

/// Admission removes the annotation, but not from a Task that taskgate itself creates, as it creates successors.
#[tokio::test]
async fn a_task_annotated_as_recorded_is_counted_all_the_same() -> anyhow::Result<()> {
    let fixture = governed("recorded", limit(1)).await?;
    let as_taskgate = Api::<kelos_standin::types::Task>::namespaced(fixture.cp.client_as_taskgate(), fixture.ns.name());
    let mut forged = task_of_item("forged", "epic");
    forged["metadata"]["annotations"][keys::RETRY_OF] = json!("00000000-2222-4333-8444-555555555555");
    forged["metadata"]["annotations"][keys::RECORDED] = json!("11111111-2222-4333-8444-555555555555");
    as_taskgate
        .create(&PostParams::default(), &serde_json::from_value(forged)?)
        .await?;
    fixture.fail("forged").await?;
    fixture.await_open("epic").await.map(drop)
}

#[tokio::test]
async fn the_end_of_a_run_with_an_absurd_cost_is_recorded() -> anyhow::Result<()> {
    let fixture = governed("costs", limit(1)).await?;
    fixture.created(&task_of_item("dear", "epic")).await?;
    fixture.await_next_task("dear", "").await?;
    let outcome = Outcome::failed_at_once();
    fixture.finish("dear", outcome).await?;
    // Kelos has written the end, and writes no more.
    fixture.await_open("epic").await?;
    let usage = json!({"status": {"usage": {"costUSD": "9000000000000000", "inputTokens": i64::MAX, "outputTokens": i64::MAX}}});
    fixture
        .tasks()
        .patch_status("dear", &PatchParams::default(), &Patch::Merge(usage))
        .await?;
    let item = fixture
        .await_work_item("epic", "has its cost", |item| {
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
async fn a_completion_time_in_the_future_or_none_blocks_nothing() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "resetAfter": "5s"}});
    let fixture = governed("clocks", spec).await?;
    for task in ["future", "never"] {
        fixture.created(&with_ttl(task)).await?;
        fixture.await_next_task(task, "").await?;
    }
    // What a Kelos with a wrong clock writes, and what a Kelos that omits it writes (kelos §6.2).
    let (ns, jobs) = (fixture.ns.name().to_owned(), fixture.jobs());
    let fixture = fixture
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
        let item = fixture
            .await_work_item(task, "is open", |item| failures(item) == 1)
            .await?;
        let attempt = item.status.and_then(|status| status.attempts.first().cloned());
        let ended = attempt.and_then(|attempt| attempt.completion_time).map(|time| time.0);
        ensure!(
            ended.is_some_and(|ended| ended <= jiff::Timestamp::now()),
            "{task}: {ended:?}"
        );
    }
    // resetAfter is over in time, and the tombstones are deleted for a probe.
    for task in ["future", "never"] {
        await_gone(&fixture.tasks(), task).await?;
    }
    Ok(())
}

/// A Task with an item of its own and a TTL.
fn with_ttl(name: &str) -> serde_json::Value {
    let mut task = task_of_item(name, name);
    task["spec"]["ttlSecondsAfterFinished"] = 1.into();
    task
}
