//! `taskgate explain` of a Task that waits for the branch of another.

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::suggested_command;

use crate::support::{await_cancelled, cancel_state, start, task_with};

#[tokio::test]
async fn it_names_the_task_that_has_the_branch_and_the_command_that_frees_it() -> anyhow::Result<()> {
    let fixture = start("explain").await?;
    // Kelos' locks know no namespaces, and other tests have branches too.
    let branch = json!({"branch": fixture.ns.name()});
    fixture.run(&task_with("holder", &branch)).await?;
    fixture.created(&task_with("waiter", &branch)).await?;
    fixture.await_task_phase("waiter", "Waiting").await?;
    let explanation = fixture.cp.explain(fixture.ns.name(), "waiter").await?;
    ensure!(explanation["state"] == "Waiting", "{explanation:#}");
    let holder = format!(
        "for branch {}, which Task holder holds; that one is Running",
        fixture.ns
    );
    fixture.cp.paste(suggested_command(&explanation, &holder)?).await?;
    await_cancelled(&fixture, "holder").await?;
    fixture.await_task_phase("waiter", "Running").await?;

    let cancelled = fixture.cp.explain(fixture.ns.name(), "task/holder").await?;
    ensure!(cancelled["state"] == "Cancelled", "{cancelled:#}");
    let later = ["--reason", "stale", "--grace", "3600"].join(" ");
    fixture
        .cp
        .paste(&format!("taskgate cancel waiter -n {} {later}", fixture.ns))
        .await?;
    let explanation = fixture.cp.explain(fixture.ns.name(), "waiter").await?;
    fixture
        .cp
        .paste(suggested_command(
            &explanation,
            "for its end: it will be cancelled at ",
        )?)
        .await?;
    fixture
        .await_task("waiter", "is spared", |task| cancel_state(task).is_empty())
        .await
        .map(drop)
}
