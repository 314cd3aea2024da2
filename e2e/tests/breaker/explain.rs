//! `taskgate explain` of a tripped item, and the command in the message of a denial.

use anyhow::{Context as _, ensure};
use taskgate_e2e::{failures, suggested_command};

use crate::support::{governed, limit, task_of_item};

#[tokio::test]
async fn a_denial_names_explain_and_explain_names_the_command_that_resets() -> anyhow::Result<()> {
    let fixture = governed("explain", limit(1)).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    let uid = fixture.fail("fixer-42").await?;
    fixture.await_open("42").await?;

    let denied = fixture
        .create(&task_of_item("again", "fixer/42"))
        .await?
        .stderr_failed()?;
    let (_, why) = denied.trim().split_once("; why: ").with_context(|| denied.clone())?;
    let told = fixture.cp.paste(why).await?;
    ensure!(
        told.starts_with(&format!("item fixer/42 in namespace {}: Open\n", fixture.ns)),
        "{told}"
    );
    for part in [
        "  State      Task fixer-42 is CircuitBroken: ",
        "  Policy     failurePolicy by TaskPolicy/agents (Enforce): no other policy with this section selects it\n",
        ": 1 failure in a row (limit 1), cost $0.25; no Task comes for it\n",
        "  Item       attempt fixer-42: Failed: ",
    ] {
        ensure!(told.contains(part), "{part}: {told}");
    }

    let stopped = "item fixer/42 is stopped for ";
    for (object, state) in [("fixer-42", "CircuitBroken"), ("spawner/fixer", "ItemsStopped")] {
        let explanation = fixture.cp.explain(fixture.ns.name(), object).await?;
        ensure!(explanation["state"] == state, "{explanation:#}");
        suggested_command(&explanation, stopped)?;
    }
    // The same from files.
    let kinds = "tasks.kelos.dev,taskspawners.kelos.dev,workitems,taskpolicies";
    let dump = format!(
        "kubectl get -n {} {kinds} -o yaml | taskgate explain fixer/42 -o json -f -",
        fixture.ns
    );
    let explanation = serde_json::from_str(&fixture.cp.paste(&dump).await?)?;
    let reset = suggested_command(&explanation, stopped)?;
    ensure!(reset == format!("taskgate reset fixer/42 -n {}", fixture.ns), "{reset}");
    fixture.cp.paste(reset).await?;
    fixture
        .await_work_item("42", "is reset", |item| failures(item) == 0)
        .await?;
    fixture.await_next_task("fixer-42", &uid).await.map(drop)
}
