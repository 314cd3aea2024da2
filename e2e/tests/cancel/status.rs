//! `taskgate status` of cancelled Tasks, and of kinds that it may not read.

use std::process::{Output, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use taskgate_e2e::{KelosFixture, PATIENCE, binary, eventually};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::support::{await_cancelled, cancel, start, task};

fn status(fixture: &KelosFixture<'_>, kubeconfig: &std::path::Path, args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("taskgate")?);
    command
        .args(["status", "--namespace", fixture.ns.name(), "--kubeconfig"])
        .arg(kubeconfig)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

fn printed(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_cancelled_task_reads_cancelled_whatever_its_phase() -> anyhow::Result<()> {
    let fixture = start("status").await?;
    fixture.run(&task("stale")).await?;
    fixture.run(&task("fresh")).await?;
    cancel(&fixture, "stale", "no longer needed").await?;
    let cancelled = await_cancelled(&fixture, "stale").await?;
    ensure!(
        cancelled.phase() == "Failed",
        "Kelos knows no other: {}",
        cancelled.phase()
    );

    let told = printed(&status(&fixture, fixture.cp.kubeconfig(), &[])?.output().await?);
    ensure!(told.0 == Some(0) && told.2.is_empty(), "{told:?}");
    let line = told.1.lines().find(|line| line.starts_with("stale "));
    let line = line.with_context(|| told.1.clone())?;
    ensure!(
        line.contains(" Cancelled ") && line.ends_with("Cancelled by user:ann: no longer needed"),
        "{line}"
    );
    // No policy governs the other, and taskgate did nothing about it.
    ensure!(told.1.contains("1 Cancelled, 1 not governed"), "{}", told.1);

    let told = printed(
        &status(&fixture, fixture.cp.kubeconfig(), &["-o", "json"])?
            .output()
            .await?,
    );
    let report: Value = serde_json::from_str(&told.1)?;
    let task = &report["tasks"]["entries"][0];
    ensure!(
        task["state"] == "Cancelled" && task["phase"] == "Failed" && task["policies"] == json!([]),
        "{task}"
    );
    Ok(())
}

#[tokio::test]
async fn a_kind_that_may_not_be_read_is_named_in_its_section() -> anyhow::Result<()> {
    let fixture = start("status-rights").await?;
    fixture.run(&task("seen")).await?;
    let stranger = fixture.cp.kubeconfig_as("stranger", &["system:authenticated"])?;
    let told = printed(&status(&fixture, &stranger, &[])?.output().await?);
    ensure!(told.0 == Some(1), "nothing could be read: {told:?}");
    let refused = r#"Tasks: tasks.kelos.dev is forbidden: User "stranger" cannot list resource "tasks""#;
    ensure!(told.1.contains(refused), "{}", told.1);

    let lists = json!([{"apiGroups": ["kelos.dev"], "resources": ["tasks"], "verbs": ["list"]}]);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": lists,
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "stranger"}],
    });
    fixture.apply_yaml(&format!("{role}\n---\n{binding}")).await?;
    eventually("Tasks are told, and what else is not known", PATIENCE, || async {
        let told = printed(&status(&fixture, &stranger, &[])?.output().await?);
        ensure!(told.0 == Some(3), "{told:?}");
        ensure!(told.1.contains("\nseen  Running "), "{}", told.1);
        ensure!(
            told.1.contains("Open items: workitems.taskgate.dev is forbidden"),
            "{}",
            told.1
        );
        ensure!(
            told.1.contains("which policies govern a Task is not known"),
            "{}",
            told.1
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn with_watch_it_prints_again_when_something_changes_until_ctrl_c() -> anyhow::Result<()> {
    let fixture = start("status-watch").await?;
    fixture.run(&task("stale")).await?;
    let mut watching = status(&fixture, fixture.cp.kubeconfig(), &["--watch"])?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = watching.stdout.take().context("its output")?;
    let mut lines = BufReader::new(stdout).lines();
    let mut next = async |what: &str| -> anyhow::Result<String> {
        let found = async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with(what) {
                    return Ok(line);
                }
            }
            anyhow::bail!("it ended")
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .with_context(|| format!("no line {what:?}"))?
    };
    next("Tasks: 0 governed").await?;
    cancel(&fixture, "stale", "no longer needed").await?;
    let line = next("stale  Cancelled ").await?;
    ensure!(line.ends_with("Cancelled by user:ann: no longer needed"), "{line}");

    let pid = watching.id().context("it runs")?.to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await?;
    ensure!(sent.success());
    let ended = tokio::time::timeout(PATIENCE, watching.wait_with_output()).await??;
    ensure!(ended.status.code() == Some(0) && ended.stderr.is_empty(), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_closed_pipe_ends_it() -> anyhow::Result<()> {
    let fixture = start("status-pipe").await?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let watching = status(&fixture, fixture.cp.kubeconfig(), &["--watch"])?
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()?;
    let ended = tokio::time::timeout(PATIENCE, watching.wait_with_output()).await??;
    ensure!(ended.status.code() == Some(0) && ended.stderr.is_empty(), "{ended:?}");
    Ok(())
}
