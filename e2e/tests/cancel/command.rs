//! `taskgate cancel`.

use anyhow::ensure;
use kube::ResourceExt as _;
use taskgate_api::keys;
use taskgate_e2e::{KelosFixture, await_gone, binary};

use crate::support::{await_cancelled, cancel_state, start, task};

async fn run(fixture: &KelosFixture<'_>, user: &str, args: &[&str]) -> anyhow::Result<std::process::Output> {
    let kubeconfig = fixture.cp.kubeconfig_as(user, &[])?;
    let mut command = tokio::process::Command::new(binary("taskgate")?);
    command.arg("cancel").args(args);
    command
        .args(["--namespace", fixture.ns.name(), "--kubeconfig"])
        .arg(kubeconfig);
    Ok(command.output().await?)
}

fn printed(output: &std::process::Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}{err}")
}

#[tokio::test]
async fn the_command_cancels_and_withdraws() -> anyhow::Result<()> {
    let fixture = start("command").await?;
    fixture.run(&task("one")).await?;
    fixture.run(&task("two")).await?;
    let output = run(&fixture, "ann", &["one", "--reason", "stale", "--dry-run"]).await?;
    ensure!(
        output.status.success() && printed(&output).contains("cancelled by user:ann"),
        "{}",
        printed(&output)
    );
    ensure!(
        !fixture
            .tasks()
            .get("one")
            .await?
            .annotations()
            .contains_key(keys::CANCEL)
    );
    let output = run(
        &fixture,
        "ann",
        &["one", "two", "missing", "--reason", "stale", "--grace", "3600"],
    )
    .await?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let text = printed(&output);
    ensure!(
        text.contains("Task one: cancelled by user:ann") && text.contains("Task two: cancelled"),
        "{text}"
    );
    ensure!(text.contains("Task missing:") && text.contains("not found"), "{text}");
    fixture
        .await_task("one", "is announced", |task| cancel_state(task) == "Announced")
        .await?;
    let output = run(&fixture, "ann", &["one", "--withdraw"]).await?;
    ensure!(output.status.success(), "{}", printed(&output));
    fixture
        .await_task("one", "is spared", |task| cancel_state(task).is_empty())
        .await?;
    let output = run(&fixture, "bob", &["one"]).await?;
    ensure!(
        !output.status.success() && printed(&output).contains("bob may not cancel"),
        "{}",
        printed(&output)
    );
    let output = run(&fixture, "ann", &["task/one", "--reason", "stale"]).await?;
    ensure!(output.status.success(), "{}", printed(&output));
    await_cancelled(&fixture, "one").await.map(drop)
}

#[tokio::test]
async fn a_selector_cancels_the_tasks_that_have_not_ended() -> anyhow::Result<()> {
    let fixture = start("selector").await?;
    for name in ["one", "two", "ended", "other"] {
        fixture.run(&task(name)).await?;
    }
    fixture.succeed("ended").await?;
    fixture.await_task_phase("ended", "Succeeded").await?;
    let label = ["label", "tasks.kelos.dev", "one", "two", "ended", "batch=7"];
    fixture.kubectl(label).await?.stdout_ok()?;
    let dry = run(&fixture, "ann", &["-l", "batch=7", "--dry-run=client"]).await?;
    let told = "Task one: would be cancelled (dry run)\nTask two: would be cancelled (dry run)\n";
    ensure!(printed(&dry) == told, "{}", printed(&dry));
    let output = run(&fixture, "ann", &["-l", "batch=7", "--reason", "stale"]).await?;
    let text = printed(&output);
    ensure!(output.status.success() && text.lines().count() == 2, "{text}");
    await_cancelled(&fixture, "one").await?;
    await_cancelled(&fixture, "two").await?;
    let nothing = run(&fixture, "ann", &["-l", "batch=8"]).await?;
    ensure!(
        nothing.status.success() && printed(&nothing).contains("no Task in namespace"),
        "{nothing:?}"
    );
    ensure!(cancel_state(&fixture.tasks().get("other").await?).is_empty());
    Ok(())
}

#[tokio::test]
async fn a_task_that_is_being_deleted_is_skipped_with_a_message() -> anyhow::Result<()> {
    let fixture = start("going").await?;
    fixture.run(&task("going")).await?;
    set_finalizers(&fixture, &["example.com/other"]).await?;
    let args = ["delete", "tasks.kelos.dev", "going", "--wait=false"];
    fixture.kubectl(args).await?.stdout_ok()?;
    let output = run(&fixture, "ann", &["going", "--reason", "late"]).await?;
    ensure!(
        output.status.code() == Some(1) && printed(&output).contains("Task going: it is being deleted"),
        "{}",
        printed(&output)
    );
    let task = fixture.tasks().get("going").await?;
    ensure!(cancel_state(&task).is_empty(), "{}", cancel_state(&task));
    set_finalizers(&fixture, &[]).await?;
    await_gone(&fixture.tasks(), "going").await
}

/// Keeps the Task from being deleted.
async fn set_finalizers(fixture: &KelosFixture<'_>, finalizers: &[&str]) -> anyhow::Result<()> {
    let patch = serde_json::json!({"metadata": {"finalizers": finalizers}}).to_string();
    let args = ["patch", "tasks.kelos.dev", "going", "--type=merge", "-p", &patch];
    fixture.kubectl(args).await?.stdout_ok().map(drop)
}
