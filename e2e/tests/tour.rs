//! `make run ONCE=1`: the tour shows what it promises, ends with 0, and leaves nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use taskgate_e2e::{binary, eventually};
use tokio::process::Command;

#[tokio::test]
async fn the_tour_shows_label_queue_denial_and_retry_and_leaves_nothing() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("taskgate-tour-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let output = Command::new(binary("tour")?)
        .env("ONCE", "1")
        .env("TMPDIR", &folder)
        .env_remove("TASKGATE_E2E_KEEP")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{}\n{told}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    for promised in [
        "claude-code   Running",
        "claude-code   Pending",
        "false       agents",
        "true        agents",
        "WaitingForAdmission   couldn't assign flavors to pod set main: insufficient unused quota for pods",
        "admitted by ClusterQueue agents after ",
        "Open      2 ",
        "1.50",
        "denied the request: taskgate: item flaky/103 failed 2 times in a row (limit 2)",
        "item flaky/103: 2 failures",
        "task.kelos.dev/once-more created (server dry run)",
        "wl-acme-app-7   2         strong",
        "> [major, tests] src/date.rs:9: no test for the leap year",
        "attempt 2 of 2",
        "The tour is over.",
    ] {
        ensure!(told.contains(promised), "{promised:?} is missing:\n{told}");
    }
    ensure!(!told.contains('\u{1b}'), "no colours where the output is no terminal");
    eventually("nothing is left", Duration::from_secs(10), || async {
        let processes = processes_naming(&folder)?;
        ensure!(processes.is_empty(), "{processes:?}");
        let files: Vec<_> = std::fs::read_dir(&folder)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .collect();
        ensure!(files.is_empty(), "{files:?}");
        Ok(())
    })
    .await?;
    std::fs::remove_dir(&folder).context("the folder is empty by now")
}

/// The command lines of running processes that name `folder`.
fn processes_naming(folder: &Path) -> anyhow::Result<Vec<String>> {
    let folder = folder.display().to_string();
    Ok(std::fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| line.contains(&folder))
        .map(|line| line.replace('\0', " "))
        .collect())
}
