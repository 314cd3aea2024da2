//! The end of a Task is recorded with one write of the WorkItem's status and one of the Task, from what the watches showed.

use std::collections::BTreeMap;

use anyhow::ensure;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kelos_standin::types::Task;
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{await_object, is_soak, task_of_item};

use crate::support::{created, end, ensure_at_most, governed, policy, requests};

/// What every end costs.
const WRITES: [&str; 2] = ["patch tasks", "patch workitems/status"];

fn ensure_once(kinds: &[&str], requests: &BTreeMap<String, usize>) -> anyhow::Result<()> {
    for kind in kinds {
        ensure!(requests.get(*kind) == Some(&1), "{kind}: {requests:?}");
    }
    Ok(())
}

/// The fifth, or fourth, is the read of the Job.
#[tokio::test]
async fn the_first_failure_costs_five_requests_and_each_later_one_four() -> anyhow::Result<()> {
    let fixture = governed("failures", 9).await?;
    for (name, most) in [("a", 5), ("b", 4), ("c", 4)] {
        created(&fixture, &task_of_item(name, "epic")).await?;
        let mark = fixture.cp.audit().mark()?;
        end(&fixture, name, "Failed").await?;
        let requests = requests(&fixture, mark).await?;
        ensure_at_most(most, &requests)?;
        ensure_once(&WRITES, &requests)?;
        ensure!(!requests.contains_key("get workitems"), "{requests:?}");
    }
    Ok(())
}

/// The Job is not read: Kelos says that there was none.
#[tokio::test]
async fn a_failure_before_the_job_costs_no_read() -> anyhow::Result<()> {
    let fixture = governed("jobless", 9).await?;
    created(&fixture, &task_of_item("a", "epic")).await?;
    let mark = fixture.cp.audit().mark()?;
    let status = json!({"message": "Dependency \"x\" failed"});
    fixture.patch_failed("a", &status).await?;
    fixture
        .await_task("a", "is recorded", |task| {
            task.annotations().contains_key(keys::RECORDED)
        })
        .await?;
    let requests = requests(&fixture, mark).await?;
    ensure_at_most(4, &requests)?;
    ensure!(!requests.keys().any(|kind| kind.starts_with("get")), "{requests:?}");
    Ok(())
}

#[tokio::test]
async fn a_success_costs_two_writes_of_the_item_and_one_of_the_task() -> anyhow::Result<()> {
    let fixture = governed("successes", 9).await?;
    for (name, most) in [("a", 3), ("b", 2)] {
        created(&fixture, &task_of_item(name, "epic")).await?;
        let mark = fixture.cp.audit().mark()?;
        end(&fixture, name, "Succeeded").await?;
        let requests = requests(&fixture, mark).await?;
        ensure_at_most(most, &requests)?;
        ensure_once(&WRITES, &requests)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_cancellation_costs_a_bounded_number_of_requests() -> anyhow::Result<()> {
    let fixture = governed("cancellations", 9).await?;
    created(&fixture, &task_of_item("a", "epic")).await?;
    let mark = fixture.cp.audit().mark()?;
    let cancel = json!({"annotations": {keys::CANCEL: "no longer needed"}});
    fixture.patch_metadata::<Task>("a", &cancel).await?;
    await_object(&fixture.tasks(), "a", "is cancelled and recorded", |task| {
        let annotation = |key: &str| task.annotations().get(key).map(String::as_str);
        annotation(keys::CANCEL_STATE) == Some("Cancelled") && annotation(keys::RECORDED).is_some()
    })
    .await?;
    ensure_at_most(12, &requests(&fixture, mark).await?)
}

/// Each Task is reconciled, and the cache shows that there is nothing to do.
#[tokio::test]
async fn a_change_of_a_policy_costs_nothing_for_tasks_that_it_does_not_change() -> anyhow::Result<()> {
    let count = if is_soak() { 1000 } else { 200 };
    let fixture = governed("policies", 8).await?;
    let failed = created(&fixture, &task_of_item("failed", "failed")).await?;
    end(&fixture, "failed", "Failed").await?;
    stream::iter(0..count)
        .map(|number| {
            let task = task_of_item(&format!("task-{number}"), &format!("item-{number}"));
            let running = json!({"phase": "Running", "startTime": failed["metadata"]["creationTimestamp"]});
            let fixture = &fixture;
            async move {
                let name = fixture.created(&task).await?;
                let name = name["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                fixture.patch_status::<Task>(&name, &running).await
            }
        })
        .buffer_unordered(16)
        .try_collect::<()>()
        .await?;
    let mark = fixture.cp.audit().mark()?;
    requests(&fixture, mark).await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.policy(policy(9)).await?;
    // The status of the policy.
    ensure_at_most(1, &requests(&fixture, mark).await?)
}
