//! `taskgate test`, as users and CI run it.

use std::{fs, path::Path, process::Command};

use anyhow::ensure;

const CASE: &str = "\
case: A Task gets its team
now: 2026-11-20T12:00:00Z
given:
- apiVersion: taskgate.dev/v1alpha1
  kind: TaskPolicy
  metadata: {name: agents, namespace: team-a}
  spec: {metadata: {labels: {team: blue}}}
objects:
- apiVersion: kelos.dev/v1alpha2
  kind: Task
  metadata: {name: fixer-42, namespace: team-a}
  spec: {type: claude-code, prompt: Fix it.}
";

fn taskgate(folder: &Path, args: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskgate"));
    let output = command.arg("test").args(args).current_dir(folder).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes);
    Ok((output.status.code(), text(output.stdout)?, text(output.stderr)?))
}

#[test]
fn a_case_is_updated_passes_and_shows_differences() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("case.yaml");
    fs::write(&path, CASE)?;
    let (code, stdout, _) = taskgate(folder.path(), &["."])?;
    ensure!(code == Some(1) && stdout.contains("./case.yaml: failed"), "{stdout}");
    let (code, stdout, _) = taskgate(folder.path(), &[".", "--update"])?;
    ensure!(code == Some(0) && stdout.contains("./case.yaml: updated"), "{stdout}");
    let (code, stdout, _) = taskgate(folder.path(), &["."])?;
    ensure!(code == Some(0) && stdout == "1 passed, 0 failed\n", "{stdout}");
    fs::write(&path, fs::read_to_string(&path)?.replace("team: blue", "team: red"))?;
    let (code, stdout, _) = taskgate(folder.path(), &["case.yaml"])?;
    let difference = r#"  ~ [0].patch[0]: "+ metadata.labels.team: \"blue\"" -> "+ metadata.labels.team: \"red\"""#;
    ensure!(
        code == Some(1) && stdout.lines().any(|line| line == difference),
        "{stdout}"
    );
    ensure!(stdout.ends_with("0 passed, 1 failed\n"), "{stdout}");
    Ok(())
}

#[test]
fn an_invalid_case_is_reported_and_hides_no_other() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (code, _, stderr) = taskgate(folder.path(), &["."])?;
    ensure!(code == Some(2) && stderr.contains("there is no case"), "{stderr}");
    fs::write(folder.path().join("good.yaml"), CASE.to_owned() + "expect: []\n")?;
    fs::write(folder.path().join("objects.yaml"), "apiVersion: v1\nkind: A\n")?;
    fs::write(
        folder.path().join("bad.yaml"),
        "now: 2026-11-20T12:00:00Z\nobjects: [absent.yaml]\n",
    )?;
    let (code, stdout, _) = taskgate(folder.path(), &[".", "nowhere"])?;
    ensure!(
        code == Some(1) && stdout.contains("nowhere: failed\n  No such file"),
        "{stdout}"
    );
    ensure!(
        stdout.contains("./bad.yaml: failed\n  ./bad.yaml: ./absent.yaml: No such file"),
        "{stdout}"
    );
    ensure!(
        stdout.contains("./good.yaml: failed") && !stdout.contains("objects.yaml"),
        "{stdout}"
    );
    Ok(())
}
