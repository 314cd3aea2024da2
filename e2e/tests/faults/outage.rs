//! What an outage of the API server costs in the log.

use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use kelos_standin::types::Task;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use taskgate_e2e::{Gate, PATIENCE, eventually};
use tokio::time::sleep;

use crate::support::{FaultFixture, UNLIMITED};

const OUTAGES: usize = 2;
/// How many Tasks fail right before an outage, so that each has a reconcile that fails.
const TASKS: usize = 60;
/// Longer than the Lease lasts.
const DOWN: Duration = Duration::from_secs(20);
/// Warnings and errors of one outage: its causes, the Lease, the webhook configurations, and what the starting API server refuses.
const MOST: usize = 10;

fn problems(log: &str) -> Vec<&str> {
    let is_problem = |line: &&str| line.contains(" WARN ") || line.contains("ERROR ");
    log.lines().filter(is_problem).collect()
}

#[tokio::test]
async fn an_outage_of_the_api_server_is_logged_once_per_cause_with_a_count_at_its_end() -> anyhow::Result<()> {
    let fixture = FaultFixture::start().await?;
    let gate = Gate::builder().start(&fixture.cp).await?;
    fixture.govern().await?;
    let tasks = fixture.ns.tasks();
    for outage in 1..=OUTAGES {
        let created = try_join_all((0..TASKS).map(|number| {
            let task = fixture.task(UNLIMITED, outage * 1000 + number);
            let tasks = &tasks;
            async move { anyhow::Ok::<Task>(tasks.create(&PostParams::default(), &task?).await?) }
        }))
        .await?;
        let failed = Patch::Merge(json!({"status": {"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"}}));
        try_join_all(created.iter().map(|task| {
            let (tasks, failed) = (&tasks, &failed);
            async move {
                tasks
                    .patch_status(&task.name_any(), &PatchParams::default(), failed)
                    .await
            }
        }))
        .await?;
        fixture.cp.apiserver().kill().await?;
        sleep(DOWN).await;
        fixture.cp.apiserver().start().await?;
        eventually("the end of the outage is logged, and it leads", PATIENCE, || async {
            let ends = gate.process().log()?.matches("the API server answers again").count();
            ensure!(ends >= outage, "{ends} ends");
            ensure!(gate.metrics().await?.sum("taskgate_leader") > 0.0);
            Ok(())
        })
        .await?;
    }
    let log = gate.process().log()?;
    let (problems, ends) = (
        problems(&log),
        log.lines().filter(|line| line.contains("answers again")),
    );
    println!("{} lines:\n{}", problems.len(), problems.join("\n"));
    for end in ends {
        println!("{end}");
        ensure!(end.contains("failed_requests=") && end.contains("lasted="), "{end}");
    }
    ensure!(
        problems.len() <= OUTAGES * MOST,
        "{} warnings and errors",
        problems.len()
    );
    Ok(())
}
