//! `taskgate cancel`.

use anyhow::ensure;
use kube::ResourceExt as _;
use taskgate_api::keys;
use taskgate_e2e::{await_gone, binary};

use crate::world::{World, state, task};

async fn run(world: &World<'_>, user: &str, args: &[&str]) -> anyhow::Result<std::process::Output> {
    let kubeconfig = world.cp.kubeconfig_as(user, &[])?;
    let mut command = tokio::process::Command::new(binary("taskgate")?);
    command.arg("cancel").args(args);
    command
        .args(["--namespace", world.ns.name(), "--kubeconfig"])
        .arg(kubeconfig);
    Ok(command.output().await?)
}

fn told(output: &std::process::Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}{err}")
}

#[tokio::test]
async fn the_command_cancels_and_withdraws() -> anyhow::Result<()> {
    let world = World::start("command").await?;
    world.run(&task("one")).await?;
    world.run(&task("two")).await?;
    let output = run(&world, "ann", &["one", "--reason", "stale", "--dry-run"]).await?;
    ensure!(
        output.status.success() && told(&output).contains("cancelled by user:ann"),
        "{}",
        told(&output)
    );
    ensure!(!world.tasks().get("one").await?.annotations().contains_key(keys::CANCEL));
    let output = run(
        &world,
        "ann",
        &["one", "two", "nobody", "--reason", "stale", "--grace", "3600"],
    )
    .await?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let text = told(&output);
    ensure!(
        text.contains("Task one: cancelled by user:ann") && text.contains("Task two: cancelled"),
        "{text}"
    );
    ensure!(text.contains("Task nobody:") && text.contains("not found"), "{text}");
    world
        .await_task("one", "is announced", |task| state(task) == "Announced")
        .await?;
    let output = run(&world, "ann", &["one", "--withdraw"]).await?;
    ensure!(output.status.success(), "{}", told(&output));
    world
        .await_task("one", "is spared", |task| state(task).is_empty())
        .await?;
    let output = run(&world, "bob", &["one"]).await?;
    ensure!(
        !output.status.success() && told(&output).contains("bob may not cancel"),
        "{}",
        told(&output)
    );
    let output = run(&world, "ann", &["one", "--reason", "stale"]).await?;
    ensure!(output.status.success(), "{}", told(&output));
    world.await_cancelled("one").await.map(drop)
}

#[tokio::test]
async fn what_is_being_deleted_is_left_alone_and_that_is_said() -> anyhow::Result<()> {
    let world = World::start("going").await?;
    world.run(&task("going")).await?;
    held(&world, &["test.example/held"]).await?;
    let args = ["delete", "tasks.kelos.dev", "going", "--wait=false"];
    world.ns.kubectl(args).await?.stdout_ok()?;
    let output = run(&world, "ann", &["going", "--reason", "late"]).await?;
    ensure!(
        output.status.code() == Some(1) && told(&output).contains("Task going: it is being deleted"),
        "{}",
        told(&output)
    );
    let task = world.tasks().get("going").await?;
    ensure!(state(&task).is_empty(), "{}", state(&task));
    held(&world, &[]).await?;
    await_gone(&world.tasks(), "going").await
}

/// Keeps the Task from going.
async fn held(world: &World<'_>, finalizers: &[&str]) -> anyhow::Result<()> {
    let patch = serde_json::json!({"metadata": {"finalizers": finalizers}}).to_string();
    let args = ["patch", "tasks.kelos.dev", "going", "--type=merge", "-p", &patch];
    world.ns.kubectl(args).await?.stdout_ok().map(drop)
}
