//! The common case: waiting, admission, the end, and interruptions.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{Namespace, PATIENCE, QUEUE_NAME, await_gone, condition, eventually, merged, never};

use crate::support::{A_WHILE, apply_task, governed, task};

fn agents() -> Value {
    json!({"queueName": "agents"})
}

fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

/// Deactivates Kueue's Workload of a Job.
async fn deactivate(ns: &Namespace, job: &str) -> anyhow::Result<()> {
    let name = ns.await_kueue_workload(job).await?.name_any();
    let patch = Patch::Merge(json!({"spec": {"active": false}}));
    ns.kueue_workloads()
        .patch(&name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

#[tokio::test]
async fn one_runs_the_other_waits_with_a_reason_until_the_first_ends() -> anyhow::Result<()> {
    let fixture = governed("flow", agents()).await?;
    fixture.queue(1).await?;
    let mark = fixture.cp.audit().mark()?;
    apply_task(&fixture, "first").await?;
    fixture.await_task_phase("first", "Running").await?;
    let first = fixture.await_queued("first", "Admitted").await?;
    ensure!(first["status"] == "False", "{first}");
    let message = first["message"].as_str().unwrap_or_default();
    let admitted = format!("admitted by ClusterQueue {} after ", fixture.ns);
    ensure!(
        message.starts_with(&admitted) && message.ends_with(" in the queue"),
        "{message}"
    );

    apply_task(&fixture, "second").await?;
    let second = fixture.await_queued("second", "WaitingForAdmission").await?;
    ensure!(second["status"] == "True", "{second}");
    let message = second["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("insufficient unused quota for cpu"),
        "Kueue's own words: {message}"
    );
    fixture
        .await_job("second", "waits in its queue", |job| {
            is_suspended(job)
                && job
                    .metadata
                    .labels
                    .as_ref()
                    .is_some_and(|labels| labels[QUEUE_NAME] == "agents")
        })
        .await?;
    ensure!(
        fixture.agents.running(fixture.ns.name(), "second") == 0,
        "a pod of a Job that waits"
    );

    fixture.succeed("first").await?;
    fixture.await_task_phase("second", "Running").await?;
    fixture.await_queued("second", "Admitted").await?;
    fixture.succeed("second").await?;

    // One write per change.
    let events = fixture.cp.audit().since(mark).await?;
    let told = |task: &str| {
        let told = events.iter().filter(|event| {
            event.user_agent.starts_with("taskgate")
                && event.object_ref.resource == "tasks"
                && event.object_ref.subresource == "status"
                && event.object_ref.namespace == fixture.ns.name()
                && event.object_ref.name == task
                && event.code() == 200
        });
        told.count()
    };
    ensure!(
        told("first") == 1 || told("first") == 2,
        "one write per change: {}",
        told("first")
    );
    ensure!(told("second") == 2, "waiting, admitted: {}", told("second"));
    for reason in ["WaitingForAdmission", "Admitted"] {
        fixture.await_event("second", reason, &[]).await?;
    }
    let labels = [("namespace", fixture.ns.name()), ("queue", "agents")];
    let waits = fixture
        .gate
        .metrics()
        .await?
        .value("taskgate_queue_wait_seconds_count", &labels);
    ensure!(waits == Some(2.0), "{waits:?}");

    // The Task is deleted, and with it the Job, its Workload, its quota.
    fixture.tasks().delete("second", &DeleteParams::default()).await?;
    await_gone(&fixture.jobs(), "second").await?;
    eventually("its Workload is gone", PATIENCE, || async {
        let left = fixture
            .kueue_workloads()
            .list(&kube::api::ListParams::default())
            .await?
            .items
            .len();
        ensure!(left == 1, "{left} Workloads");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn time_in_the_queue_is_not_counted_against_the_deadline() -> anyhow::Result<()> {
    let fixture = governed("deadline", agents()).await?;
    fixture.queue(1).await?;
    apply_task(&fixture, "first").await?;
    fixture.await_task_phase("first", "Running").await?;
    let mut hasty = task("hasty");
    hasty["spec"]["podOverrides"]["activeDeadlineSeconds"] = json!(2);
    fixture.apply_yaml(&hasty.to_string()).await?;
    fixture.await_queued("hasty", "WaitingForAdmission").await?;
    let jobs = fixture.jobs();
    never("the deadline passes in the queue", Duration::from_secs(4), || async {
        let status = jobs.get("hasty").await?.status.unwrap_or_default();
        Ok(status
            .conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "Failed"))
    })
    .await?;
    fixture.succeed("first").await?;
    fixture.await_queued("hasty", "Admitted").await?;
    let failed = fixture
        .await_job("hasty", "fails at its deadline", |job| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Failed"))
        })
        .await?;
    let reasons: Vec<_> = failed
        .status
        .into_iter()
        .filter_map(|status| status.conditions)
        .flatten()
        .collect();
    ensure!(
        reasons.iter().any(|c| c.reason.as_deref() == Some("DeadlineExceeded")),
        "{reasons:?}"
    );
    fixture.await_task_phase("hasty", "Failed").await?;
    let last = fixture.await_queued("hasty", "Admitted").await?;
    ensure!(last["status"] == "False", "{last}");
    Ok(())
}

#[tokio::test]
async fn a_task_that_waits_counts_as_active() -> anyhow::Result<()> {
    let fixture = governed("active", agents()).await?;
    fixture.queue(0).await?;
    for number in [1, 2] {
        fixture.repo().issue(number);
    }
    let resources = task("x")["spec"]["podOverrides"].take();
    let spec = json!({"maxConcurrency": 1, "taskTemplate": {"podOverrides": resources}});
    let when = json!({"githubIssues": {"pollInterval": "1s"}});
    fixture.spawner("fixer", &when, &spec).await?;
    // The newest issue comes first. A quota of zero has the same message as any that is too small.
    let told = fixture.await_queued("fixer-2", "WaitingForAdmission").await?;
    ensure!(
        told["message"]
            .as_str()
            .is_some_and(|message| message.contains("insufficient quota for cpu")),
        "{told}"
    );
    never("another Task is created beside the one that waits", A_WHILE, || async {
        Ok(fixture.tasks().get_opt("fixer-1").await?)
    })
    .await
}

#[tokio::test]
async fn a_deactivated_job_stays_with_the_command_that_starts_it() -> anyhow::Result<()> {
    let fixture = governed(
        "off",
        json!({"queueName": "agents", "failurePolicy": {"maxRetriesPerItem": 1}}),
    )
    .await?;
    fixture.queue(1).await?;
    let mine = merged(
        task("mine"),
        &json!({"metadata": {"annotations": {"taskgate.dev/item": "42"}}}),
    );
    fixture.apply_yaml(&mine.to_string()).await?;
    fixture.await_task_phase("mine", "Running").await?;
    fixture.await_queued("mine", "Admitted").await?;
    deactivate(&fixture, "mine").await?;
    let told = fixture.await_queued("mine", "Deactivated").await?;
    ensure!(told["status"] == "False", "{told}");
    let message = told["message"].as_str().unwrap_or_default();
    let (_, command) = message.split_once("kubectl ").context("no command")?;
    fixture.await_job("mine", "is suspended", is_suspended).await?;
    never("the Task fails", A_WHILE, || async {
        let task = fixture.tasks().get("mine").await?;
        Ok((task.phase() == "Failed").then(|| condition(&task, "Queued")))
    })
    .await?;
    let words = command.split(' ').map(|word| word.trim_matches('\''));
    fixture.cp.kubectl(words).await?.stdout_ok()?;
    fixture.await_queued("mine", "Admitted").await?;
    fixture.succeed("mine").await
}

#[tokio::test]
async fn a_deactivated_job_fails_where_the_policy_wants_it() -> anyhow::Result<()> {
    let spec = json!({
        "queueName": "agents", "queueOnDeactivation": "Fail", "failurePolicy": {"maxRetriesPerItem": 3},
    });
    let fixture = governed("fails", spec).await?;
    fixture.queue(1).await?;
    let mine = merged(
        task("mine"),
        &json!({"metadata": {"annotations": {"taskgate.dev/item": "42"}}}),
    );
    fixture.apply_yaml(&mine.to_string()).await?;
    fixture.await_queued("mine", "Admitted").await?;
    fixture.await_task_phase("mine", "Running").await?;
    deactivate(&fixture, "mine").await?;
    fixture.await_task_phase("mine", "Failed").await?;
    let items = fixture.work_items();
    eventually("the failure is counted, and named", PATIENCE, || async {
        let all = items.list(&kube::api::ListParams::default()).await?;
        let mut attempts = all
            .iter()
            .filter_map(|item| item.status.as_ref())
            .flat_map(|status| &status.attempts);
        ensure!(
            attempts.any(|attempt| attempt.reason.as_deref() == Some("QueueDeactivated")),
            "{all:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_task_that_is_cancelled_in_the_queue_leaves_it() -> anyhow::Result<()> {
    let fixture = governed("cancelled", agents()).await?;
    fixture.queue(1).await?;
    apply_task(&fixture, "first").await?;
    fixture.await_task_phase("first", "Running").await?;
    for name in ["second", "third"] {
        apply_task(&fixture, name).await?;
        fixture.await_queued(name, "WaitingForAdmission").await?;
    }
    fixture
        .kubectl([
            "annotate",
            "tasks.kelos.dev",
            "second",
            "taskgate.dev/cancel=not needed any more",
        ])
        .await?
        .stdout_ok()?;
    fixture.await_task_phase("second", "Failed").await?;
    let told = fixture.await_queued("second", "Ended").await?;
    ensure!(told["status"] == "False", "{told}");
    fixture.succeed("first").await?;
    fixture.await_queued("third", "Admitted").await?;
    ensure!(
        fixture.agents.running(fixture.ns.name(), "second") == 0,
        "it ran after all"
    );
    fixture.succeed("third").await
}
