//! `kubectl taskgate`: the binary under the name that kubectl looks for.

use std::{os::unix::fs::symlink, process::Command};

use anyhow::ensure;

#[test]
fn as_a_plugin_it_calls_itself_as_it_was_called() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let plugin = folder.path().join("kubectl-taskgate");
    symlink(env!("CARGO_BIN_EXE_taskgate"), &plugin)?;
    for (arguments, usage) in [
        (vec!["--help"], "Usage: kubectl taskgate <COMMAND>"),
        (vec!["check", "--help"], "Usage: kubectl taskgate check "),
    ] {
        let shown = Command::new(&plugin).args(&arguments).output()?;
        let shown = String::from_utf8(shown.stdout)?;
        ensure!(shown.contains(usage), "{arguments:?}: {shown}");
    }
    let wrong = Command::new(&plugin).arg("chek").output()?;
    ensure!(wrong.status.code() == Some(2), "{wrong:?}");
    Ok(())
}

#[test]
fn kubectl_is_told_what_may_come_next() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let completer = folder.path().join("kubectl_complete-taskgate");
    symlink(env!("CARGO_BIN_EXE_taskgate"), &completer)?;
    for (words, wanted) in [
        (&["check", "-o", "ju"][..], "junit\t"),
        (
            &["res"],
            "reset\tForget the failures of items, so that they are tried again\n:4\n",
        ),
        (&["check", ""], ":0\n"),
    ] {
        let told = Command::new(&completer).args(words).output()?;
        let text = String::from_utf8(told.stdout)?;
        ensure!(told.status.success() && text.starts_with(wanted), "{words:?}: {text}");
    }
    Ok(())
}
