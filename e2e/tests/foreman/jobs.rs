//! The Jobs of agents: F15.

use crate::support::{ISSUE, children, start, start_with};
use anyhow::ensure;
use foreman_standin::types::AgenticTask;
use foreman_standin::{Outcome, keys};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use taskgate_e2e::{CODER, ForemanNamespace, PATIENCE, await_gone, eventually, eventually_that};

async fn jobs(fixture: &ForemanNamespace, task: &str) -> anyhow::Result<Vec<Job>> {
    let of_task = ListParams::default().labels(&format!("{}={task}", keys::TASK_NAME));
    Ok(fixture.jobs().list(&of_task).await?.items)
}

async fn one_job(fixture: &ForemanNamespace, task: &str) -> anyhow::Result<Job> {
    eventually(format!("{task} has one Job"), PATIENCE, async || {
        let mut found = jobs(fixture, task).await?;
        ensure!(found.len() == 1, "{} Jobs", found.len());
        Ok(found.remove(0))
    })
    .await
}

#[tokio::test]
async fn f15_a_coders_job_is_owned_by_its_task_and_does_not_block_its_deletion() -> anyhow::Result<()> {
    let fixture = start("f15").await?;
    fixture.workload("wl", &CODER.replace("coder}", "jobber}")).await?;
    let job = one_job(&fixture, "wl-code-7").await?;
    let name = job.name_any();
    assert!(name.starts_with("foreman-coder-wl-code-7-"), "{name}");
    let running = |task: &AgenticTask| task.current().job_name == name;
    fixture
        .await_agentic_task("wl-code-7", "names its Job", running)
        .await?;
    let owner = job.owner_references().first().expect("has an owner").clone();
    assert_eq!(
        (owner.kind.as_str(), owner.controller, owner.block_owner_deletion),
        ("AgenticTask", Some(true), None)
    );
    fixture
        .finish("wl-code-7", Outcome::declined("MODEL-DECIDED", "no"))
        .await?;
    let ended = fixture
        .jobs()
        .get(&name)
        .await?
        .status
        .and_then(|status| status.succeeded);
    assert_eq!(ended, Some(1), "a bad verdict is a good end of the Job");
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&fixture.workloads(), "wl").await?;
    await_gone(&fixture.jobs(), &name).await
}

#[tokio::test]
async fn f15_a_gates_job_has_no_owner_and_stays() -> anyhow::Result<()> {
    let fixture = start_with("f15b", |options| options.gate_jobs = true).await?;
    fixture.workload("wl", ISSUE).await?;
    fixture.finish("wl-code-7", Outcome::go()).await?;
    let job = one_job(&fixture, "wl-verify-7").await?;
    assert!(job.owner_references().is_empty());
    assert_eq!(job.labels().get(keys::APP).map(String::as_str), Some("foreman-gate"));
    eventually_that(
        "its pod is there",
        PATIENCE,
        async || Ok(fixture.jobs().get(&job.name_any()).await?),
        |job| job.status.as_ref().is_some_and(|status| status.active == Some(1)),
    )
    .await?;
    fixture.workloads().delete("wl", &DeleteParams::foreground()).await?;
    await_gone(&fixture.workloads(), "wl").await?;
    ensure!(children(&fixture, "wl").await?.is_empty());
    let left = one_job(&fixture, "wl-verify-7").await?;
    assert_eq!(left.status.and_then(|status| status.active), Some(1), "it runs on");
    Ok(())
}
