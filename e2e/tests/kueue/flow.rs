//! The ordinary course: waiting, admission, the end, and what interrupts it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::{batch::v1::Job, events::v1::Event};
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use taskgate_api::WorkItem;
use taskgate_e2e::{PATIENCE, await_gone, eventually, never};

use crate::world::{A_WHILE, QUEUE, World, condition, plane, task};

fn agents() -> Value {
    json!({"queueName": "agents"})
}

fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

#[tokio::test]
async fn one_runs_the_other_waits_and_says_why_until_the_first_ends() -> anyhow::Result<()> {
    let world = World::governed("flow", agents()).await?;
    world.queue(1).await?;
    let mark = world.cp.audit().mark()?;
    world.task("first").await?;
    world.runs("first").await?;
    let first = world.queued("first", "Admitted").await?;
    ensure!(first["status"] == "False", "{first}");
    let message = first["message"].as_str().unwrap_or_default();
    let admitted = format!("admitted by ClusterQueue {} after ", world.ns);
    ensure!(
        message.starts_with(&admitted) && message.ends_with(" in the queue"),
        "{message}"
    );

    world.task("second").await?;
    let second = world.queued("second", "WaitingForAdmission").await?;
    ensure!(second["status"] == "True", "{second}");
    let message = second["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("insufficient unused quota for cpu"),
        "Kueue's own words: {message}"
    );
    world
        .job("second", "waits in its queue", |job| {
            is_suspended(job)
                && job
                    .metadata
                    .labels
                    .as_ref()
                    .is_some_and(|labels| labels[QUEUE] == "agents")
        })
        .await?;
    ensure!(
        world.kelos.agents.running(world.ns.name(), "second") == 0,
        "a pod of a Job that waits"
    );

    world.succeed("first").await?;
    world.runs("second").await?;
    world.queued("second", "Admitted").await?;
    world.succeed("second").await?;

    // What was written, and how often.
    let events = world.cp.audit().since(mark).await?;
    let told = |task: &str| {
        let told = events.iter().filter(|event| {
            event.user_agent.starts_with("taskgate")
                && event.object_ref.resource == "tasks"
                && event.object_ref.subresource == "status"
                && event.object_ref.namespace == world.ns.name()
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
    let api: Api<Event> = world.ns.api();
    eventually("the Task has an Event of each", PATIENCE, || async {
        let all = api.list(&kube::api::ListParams::default()).await?;
        let of = |reason: &str| {
            all.iter().any(|event| {
                let about = event.regarding.as_ref().and_then(|regarding| regarding.name.as_deref());
                about == Some("second") && event.reason.as_deref() == Some(reason)
            })
        };
        ensure!(of("WaitingForAdmission") && of("Admitted"), "not both");
        Ok(())
    })
    .await?;
    let (_, gate) = plane().await?;
    let labels = [("namespace", world.ns.name()), ("queue", "agents")];
    let waits = gate
        .metrics()
        .await?
        .value("taskgate_queue_wait_seconds_count", &labels);
    ensure!(waits == Some(2.0), "{waits:?}");

    // The Task goes, and with it the Job, its Workload, its quota.
    world.tasks().delete("second", &DeleteParams::default()).await?;
    await_gone(&world.ns.api::<Job>(), "second").await?;
    eventually("its Workload is gone", PATIENCE, || async {
        let left = world
            .workloads()
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
    let world = World::governed("deadline", agents()).await?;
    world.queue(1).await?;
    world.task("first").await?;
    world.runs("first").await?;
    let mut hasty = task("hasty");
    hasty["spec"]["podOverrides"]["activeDeadlineSeconds"] = json!(2);
    world.ns.apply_yaml(&hasty.to_string()).await?;
    world.queued("hasty", "WaitingForAdmission").await?;
    let jobs = world.ns.api::<Job>();
    never("the deadline passes in the queue", Duration::from_secs(4), || async {
        let status = jobs.get("hasty").await?.status.unwrap_or_default();
        Ok(status
            .conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "Failed"))
    })
    .await?;
    world.succeed("first").await?;
    world.queued("hasty", "Admitted").await?;
    let failed = world
        .job("hasty", "fails at its deadline", |job| {
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
    world.phase("hasty", "Failed").await?;
    let last = world.queued("hasty", "Admitted").await?;
    ensure!(last["status"] == "False", "{last}");
    Ok(())
}

#[tokio::test]
async fn a_task_that_waits_counts_as_active() -> anyhow::Result<()> {
    let world = World::governed("active", agents()).await?;
    world.queue(0).await?;
    for number in [1, 2] {
        world.kelos.github.repo("o", "r").issue(number);
    }
    let workspace = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "repo"},
        "spec": {"repo": world.kelos.github.repo("o", "r").clone_url()},
    });
    world.ns.apply_yaml(&workspace.to_string()).await?;
    let mut template = task("x")["spec"].clone();
    template["promptTemplate"] = template["prompt"].take();
    template["workspaceRef"] = json!({"name": "repo"});
    template.as_object_mut().map(|template| template.remove("prompt"));
    let spawner = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": "fixer"},
        "spec": {"when": {"githubIssues": {"pollInterval": "1s"}}, "maxConcurrency": 1, "taskTemplate": template},
    });
    world.ns.apply_yaml(&spawner.to_string()).await?;
    // The newest issue comes first. A quota of nothing is told like any other: it will not do.
    let told = world.queued("fixer-2", "WaitingForAdmission").await?;
    ensure!(
        told["message"]
            .as_str()
            .is_some_and(|message| message.contains("insufficient quota for cpu")),
        "{told}"
    );
    never("another Task is made beside the one that waits", A_WHILE, || async {
        Ok(world.tasks().get_opt("fixer-1").await?)
    })
    .await
}

#[tokio::test]
async fn a_deactivated_job_stays_and_says_how_to_start_it() -> anyhow::Result<()> {
    let world = World::governed(
        "off",
        json!({"queueName": "agents", "failurePolicy": {"maxRetriesPerItem": 1}}),
    )
    .await?;
    world.queue(1).await?;
    let mut mine = task("mine");
    mine["metadata"]["annotations"] = json!({"taskgate.dev/item": "42"});
    world.ns.apply_yaml(&mine.to_string()).await?;
    world.runs("mine").await?;
    world.queued("mine", "Admitted").await?;
    world.patch_workload("mine", json!({"active": false})).await?;
    let told = world.queued("mine", "Deactivated").await?;
    ensure!(told["status"] == "False", "{told}");
    let message = told["message"].as_str().unwrap_or_default();
    let (_, command) = message.split_once("kubectl ").context("no command")?;
    world.job("mine", "is suspended", is_suspended).await?;
    never("the Task fails", A_WHILE, || async {
        let task = world.tasks().get("mine").await?;
        Ok((task.phase() == "Failed").then(|| condition(&task)))
    })
    .await?;
    let words = command.split(' ').map(|word| word.trim_matches('\''));
    world.cp.kubectl(words).await?.stdout_ok()?;
    world.queued("mine", "Admitted").await?;
    world.succeed("mine").await
}

#[tokio::test]
async fn a_deactivated_job_fails_where_the_policy_wants_it() -> anyhow::Result<()> {
    let spec = json!({
        "queueName": "agents", "queueOnDeactivation": "Fail", "failurePolicy": {"maxRetriesPerItem": 3},
    });
    let world = World::governed("fails", spec).await?;
    world.queue(1).await?;
    let mut mine = task("mine");
    mine["metadata"]["annotations"] = json!({"taskgate.dev/item": "42"});
    world.ns.apply_yaml(&mine.to_string()).await?;
    world.queued("mine", "Admitted").await?;
    world.runs("mine").await?;
    world.patch_workload("mine", json!({"active": false})).await?;
    world.phase("mine", "Failed").await?;
    let items = world.ns.api::<WorkItem>();
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
    let world = World::governed("cancelled", agents()).await?;
    world.queue(1).await?;
    world.task("first").await?;
    world.runs("first").await?;
    for name in ["second", "third"] {
        world.task(name).await?;
        world.queued(name, "WaitingForAdmission").await?;
    }
    world
        .ns
        .kubectl([
            "annotate",
            "tasks.kelos.dev",
            "second",
            "taskgate.dev/cancel=not needed any more",
        ])
        .await?
        .stdout_ok()?;
    world.phase("second", "Failed").await?;
    let told = world.queued("second", "Ended").await?;
    ensure!(told["status"] == "False", "{told}");
    world.succeed("first").await?;
    world.queued("third", "Admitted").await?;
    ensure!(
        world.kelos.agents.running(world.ns.name(), "second") == 0,
        "it ran after all"
    );
    world.succeed("third").await
}
