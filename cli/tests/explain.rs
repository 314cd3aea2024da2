//! `taskgate explain` on files, as users run it: what is printed, and the exit code.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::ensure;
use serde_json::Value;

const CLUSTER: &str = "\
apiVersion: taskgate.dev/v1alpha1
kind: TaskPolicy
metadata: {name: agents, namespace: team-a}
spec: {failurePolicy: {maxRetriesPerItem: 2}}
---
apiVersion: taskgate.dev/v1alpha1
kind: WorkItem
metadata: {name: fixer-42-e13156ca85, namespace: team-a}
spec: {key: fixer/42, item: '42', spawner: fixer}
status: {breaker: Open, consecutiveFailures: 2, totalCostUSD: '1.50'}
";

fn taskgate(args: &[&str], stdout: Stdio) -> anyhow::Result<std::process::Output> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("cluster.yaml"), CLUSTER)?;
    fs::write(folder.path().join("broken.yaml"), "a: [")?;
    fs::write(folder.path().join("none.yaml"), "kind: Nothing\napiVersion: v1\n")?;
    let process = Command::new(env!("CARGO_BIN_EXE_taskgate"))
        .arg("explain")
        .args(args)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(process.wait_with_output()?)
}

#[test]
fn files_are_explained_with_the_right_exit_code() -> anyhow::Result<()> {
    for (args, code, stdout, stderr) in [
        (
            &["42", "-f", "cluster.yaml"][..],
            0,
            "item fixer/42 in namespace team-a: Open\n",
            "",
        ),
        (
            &["42", "-f", "cluster.yaml", "broken.yaml"],
            3,
            "  Hidden     broken.yaml:1:",
            "",
        ),
        (
            &["task/x", "-f", "cluster.yaml"],
            1,
            "",
            "taskgate: there is no Task x in namespace default\n",
        ),
        (
            &["x", "-f", "none.yaml"],
            1,
            "",
            "taskgate: there is nothing to explain in these files\n",
        ),
        (
            &["task/", "-f", "cluster.yaml"],
            2,
            "",
            "taskgate: task/ names nothing; the forms are task/NAME, ",
        ),
        (
            &["x", "-f", "cluster.yaml", "--context", "c"],
            2,
            "",
            "cannot be used with",
        ),
        (&[], 2, "", "OBJECT"),
    ] {
        let output = taskgate(args, Stdio::piped())?;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(
            output.status.code() == Some(code),
            "{args:?}: {:?}\n{out}{err}",
            output.status
        );
        ensure!(out.contains(stdout) && err.contains(stderr), "{args:?}: {out}{err}");
        ensure!(
            out.is_empty() == (code == 1 || code == 2) && !out.contains('\u{1b}'),
            "{out}"
        );
    }
    Ok(())
}

#[test]
fn json_and_yaml_have_the_same() -> anyhow::Result<()> {
    let output = taskgate(&["item/fixer/42", "-f", "cluster.yaml", "-o", "json"], Stdio::piped())?;
    let story: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(story["state"] == "Open" && story["namespace"] == "team-a", "{story:#}");
    let line = &story["lines"][1];
    ensure!(
        line["topic"] == "Item" && line["command"] == "taskgate reset fixer/42 -n team-a",
        "{story:#}"
    );
    let yaml = taskgate(&["item/fixer/42", "-f", "cluster.yaml", "-o", "yaml"], Stdio::piped())?;
    ensure!(String::from_utf8(yaml.stdout)?.starts_with("object: item fixer/42\n"));
    Ok(())
}

#[test]
fn a_closed_pipe_is_no_error() -> anyhow::Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let output = taskgate(&["42", "-f", "cluster.yaml"], writer.into())?;
    ensure!(
        output.status.code() == Some(0) && output.stderr.is_empty(),
        "{output:?}"
    );
    Ok(())
}
