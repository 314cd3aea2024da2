//! Many Tasks concurrently over a small quota, and what they cost the API server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use kelos_standin::{Agents, Outcome, Scope};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_e2e::{Fixture, KelosFixture, KelosNamespace, condition, eventually};

use crate::support::{MUTATE_JOBS, shared, task};

const TASKS: usize = 50;
const QUOTA: u32 = 5;

#[tokio::test]
async fn fifty_tasks_never_exceed_a_quota_of_five_and_all_of_them_finish() -> anyhow::Result<()> {
    let (cp, gate) = shared().await?;
    let ns = cp.namespace("crowd").await?;
    let scope = Scope::Namespaces(vec![ns.name().to_owned()]);
    // The pods that exist are what uses the quota.
    let agents = Agents::scripted(cp.client(), &scope, |_| {
        Some((Duration::from_millis(200), Outcome::succeeded()))
    });
    let ns = KelosNamespace::builder().agents(agents.await).start(ns).await?;
    let fixture = Fixture { cp, gate, ns };
    fixture.policy(json!({"queueName": "agents"})).await?;
    fixture.queue(QUOTA).await?;
    let most = Arc::new(AtomicI64::new(0));
    let watching = tokio::spawn(most_active(
        cp.client(),
        fixture.ns.name().to_owned(),
        Arc::clone(&most),
    ));
    let mark = cp.audit().mark()?;
    let all: Vec<_> = (0..TASKS).map(|index| task(&format!("t{index}")).to_string()).collect();
    fixture.apply_yaml(&all.join("\n---\n")).await?;
    eventually("all of them succeed", Duration::from_mins(5), || async {
        let tasks = fixture.tasks().list(&ListParams::default()).await?;
        let done = tasks.iter().filter(|task| task.phase() == "Succeeded").count();
        ensure!(done == TASKS, "{done} of {TASKS}");
        Ok(())
    })
    .await?;
    eventually("all of them have the condition", taskgate_e2e::PATIENCE, || async {
        let tasks = fixture.tasks().list(&ListParams::default()).await?;
        let told = tasks
            .iter()
            .filter_map(|task| condition(task, "Queued"))
            .filter(|told| told["reason"] == "Admitted")
            .count();
        ensure!(told == TASKS, "{told} of {TASKS}");
        Ok(())
    })
    .await?;
    watching.abort();
    let most = most.load(Ordering::Relaxed);
    ensure!(most > 0 && most <= i64::from(QUOTA), "{most} ran at the same time");

    // One write per change: no condition is written twice in a row.
    let events = cp.audit().since(mark).await?;
    let mut told: std::collections::HashMap<String, Vec<String>> = std::collections::HashMap::new();
    for event in &events {
        let about = &event.object_ref;
        if event.user_agent.starts_with("taskgate")
            && (about.resource.as_str(), about.subresource.as_str()) == ("tasks", "status")
            && about.namespace == fixture.ns.name()
            && event.code() == 200
        {
            let body = event.request_object.clone().unwrap_or_default();
            let conditions = body
                .pointer("/status/conditions")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            let ours = conditions
                .into_iter()
                .find(|condition| condition["type"] == "Queued")
                .unwrap_or_default();
            let said = format!("{} {}", ours["reason"], ours["message"]);
            told.entry(about.name.clone()).or_default().push(said);
        }
    }
    for (task, said) in &told {
        ensure!(
            said.windows(2).all(|pair| pair[0] != pair[1]),
            "{task} has the same condition twice: {said:?}"
        );
    }
    second_pass(&fixture).await
}

/// Counts the pods that the Jobs have, until it is stopped.
async fn most_active(client: kube::Client, namespace: String, most: Arc<AtomicI64>) {
    let jobs = kube::Api::<Job>::namespaced(client, &namespace);
    loop {
        if let Ok(all) = jobs.list(&ListParams::default()).await {
            let active = all
                .iter()
                .filter_map(|job| job.status.as_ref()?.active)
                .map(i64::from)
                .sum();
            most.fetch_max(active, Ordering::Relaxed);
        }
        // Paces the count.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Each Job, as it is stored, goes through admission once more: the patch is empty.
async fn second_pass(fixture: &KelosFixture<'_>) -> anyhow::Result<()> {
    let jobs = fixture.jobs().list(&ListParams::default()).await?;
    ensure!(jobs.items.len() == TASKS, "{} Jobs", jobs.items.len());
    let mark = fixture.cp.audit().mark()?;
    for job in &jobs {
        let again = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "name": format!("{}-again", job.name_any()), "labels": job.labels(), "annotations": job.annotations(),
                "ownerReferences": job.owner_references(),
            },
            "spec": {"suspend": true, "template": {
                "metadata": {"labels": {"kelos.dev/task": job.name_any()}},
                "spec": job.spec.as_ref().and_then(|spec| spec.template.spec.clone()),
            }},
        });
        let args = ["create", "--dry-run=server", "-oname", "-f-"];
        fixture
            .kubectl_with_input(args, &again.to_string())
            .await?
            .stdout_ok()?;
    }
    let events = fixture.cp.audit().since(mark).await?;
    let passes: Vec<_> = events
        .iter()
        .filter(|event| event.object_ref.namespace == fixture.ns.name() && event.was_sent_to(MUTATE_JOBS))
        .collect();
    ensure!(passes.len() >= TASKS, "{} passes", passes.len());
    let patched = passes.iter().find(|event| !event.patches_of(MUTATE_JOBS).is_empty());
    ensure!(
        patched.is_none(),
        "{:?}",
        patched.map(|event| event.patches_of(MUTATE_JOBS))
    );
    Ok(())
}
