//! A process whose wall clock is wrong, as that of a node without NTP.

use std::path::PathBuf;

use anyhow::ensure;
use tokio::process::Command;

use crate::{ControlPlane, ProcessSpec};

const SOURCE: &str = include_str!("wrong_clock.c");

impl ProcessSpec {
    /// Lets the wall clock of the process be `seconds` ahead of the machine's; behind, if negative. `library` is [`build`].
    pub(crate) fn clock_ahead(self, seconds: i64, library: &std::path::Path) -> Self {
        self.env("LD_PRELOAD", library)
            .env("TASKGATE_E2E_CLOCK_AHEAD", seconds.to_string())
    }
}

/// Builds the library that changes the clock of a process, with the C compiler that Rust links with.
///
/// # Errors
/// If there is none.
pub(crate) async fn build(cp: &ControlPlane) -> anyhow::Result<PathBuf> {
    let (source, library) = (cp.dir().join("wrong_clock.c"), cp.dir().join("wrong_clock.so"));
    tokio::fs::write(&source, SOURCE).await?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    let output = compiler.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(library)
}
