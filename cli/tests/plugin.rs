//! `kubectl taskgate`: the binary under the name that kubectl looks for.

use std::{os::unix::fs::symlink, process::Command};

use anyhow::ensure;

#[test]
fn the_help_of_the_plugin_has_its_name() -> anyhow::Result<()> {
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
