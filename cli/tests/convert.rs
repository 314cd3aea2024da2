//! `taskgate convert` on files: golden files, exit codes, and what both directions keep.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};

fn files() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/convert")
}

/// Standard output, standard error and the exit code.
fn convert(args: &[&str]) -> anyhow::Result<(String, String, Option<i32>)> {
    let output = Command::new(env!("CARGO_BIN_EXE_taskgate"))
        .arg("convert")
        .args(args)
        .current_dir(files())
        .output()?;
    let text = |bytes| String::from_utf8(bytes);
    Ok((text(output.stdout)?, text(output.stderr)?, output.status.code()))
}

/// With `UPDATE_GOLDEN=1` the golden files are written anew.
fn golden(name: &str, args: &[&str]) -> anyhow::Result<()> {
    let (found, errors, code) = convert(args)?;
    ensure!(code == Some(0), "{code:?}: {errors}");
    let path = files().join(format!("{name}.expected.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &found)?;
    }
    let expected = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(found == expected, "{name}:\n{found}");
    Ok(())
}

#[test]
fn a_spawner_becomes_a_policy() -> anyhow::Result<()> {
    golden("spawner", &["-f", "spawner.yaml"])
}

#[test]
fn a_policy_becomes_fields_and_names_what_is_lost() -> anyhow::Result<()> {
    golden("policy", &["-f", "policy.yaml"])
}

#[test]
fn what_a_spawner_becomes_converts_back_to_its_fields() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("policy.yaml");
    fs::copy(files().join("spawner.expected.yaml"), &path)?;
    let (found, errors, code) = convert(&["-f", &path.to_string_lossy()])?;
    ensure!(code == Some(0), "{errors}");
    for line in [
        "maxRetriesPerItem: 3",
        "resetOnChange: true",
        "onSourceRemoved: Cancel",
        "queueName: agents",
        "name: fixer",
    ] {
        ensure!(found.contains(line), "{line} is missing in\n{found}");
    }
    ensure!(!found.contains("Not expressed"), "{found}");
    Ok(())
}

#[test]
fn what_cannot_be_converted_is_an_error() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let spawner = "apiVersion: kelos.dev/v1alpha2\nkind: TaskSpawner\nmetadata: {name: a}\nspec: ";
    let policy = "apiVersion: taskgate.dev/v1alpha1\nkind: TaskPolicy\nmetadata: {name: a}\nspec: ";
    let cluster =
        "apiVersion: taskgate.dev/v1alpha1\nkind: ClusterTaskPolicy\nmetadata: {name: a}\nspec: {queueName: a}";
    for (text, code, message) in [
        (
            format!("{spawner}{{failurePolicy: {{maxRetriesPerItem: many}}}}"),
            1,
            "spec.failurePolicy: invalid type",
        ),
        (
            format!("{spawner}{{taskTemplate: {{queueName: Not Legal}}}}"),
            1,
            "spec.taskTemplate.queueName: ",
        ),
        (
            format!("{spawner}{{suspend: true}}"),
            2,
            "no TaskSpawner with policy fields",
        ),
        (
            format!("{policy}{{failurePolicy: {{maxRetriesPerItem: 1}}}}"),
            1,
            "name one with --spawner",
        ),
        (
            format!("{policy}{{selector: {{spawnerNames: [a]}}, retry: {{maxAttempts: 2}}}}"),
            1,
            "has no field for",
        ),
        (cluster.to_owned(), 1, "a ClusterTaskPolicy governs many namespaces"),
        ("a: [".to_owned(), 1, "file.yaml"),
    ] {
        let path = folder.path().join("file.yaml");
        fs::write(&path, &text)?;
        let (found, errors, ended) = convert(&["-f", &path.to_string_lossy()])?;
        ensure!(
            ended == Some(code) && errors.contains(message),
            "{text}: {ended:?} {errors} {found}"
        );
    }
    Ok(())
}
