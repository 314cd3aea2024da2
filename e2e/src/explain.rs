//! `taskgate explain`, and the commands that it suggests, run as a user does who pastes them into a shell.

use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::access::Access;
use crate::gate::binary;

impl Access {
    /// The explanation of `object`, such as `task/fixer-42`, as JSON.
    ///
    /// # Errors
    /// If the command fails.
    pub async fn explain(&self, namespace: &str, object: &str) -> anyhow::Result<Value> {
        let printed = self
            .paste(&format!("taskgate explain {object} -n {namespace} -o json"))
            .await?;
        serde_json::from_str(&printed).with_context(|| printed)
    }

    /// Runs a line in a shell that knows `taskgate` and `kubectl`. Returns what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub async fn paste(&self, line: &str) -> anyhow::Result<String> {
        let program = binary("taskgate")?;
        let folders = [program.parent(), self.kubectl_path().parent()];
        let known = std::env::var_os("PATH").unwrap_or_default();
        let known = std::env::split_paths(&known);
        let path = folders.into_iter().flatten().map(ToOwned::to_owned).chain(known);
        let output = Command::new("sh")
            .args(["-c", line])
            .env("PATH", std::env::join_paths(path)?)
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.dir().join("kubectl-cache"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| line.to_owned())?;
        let stdout = String::from_utf8(output.stdout)?;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(output.status.success(), "{line}: {}\n{stdout}{stderr}", output.status);
        Ok(stdout)
    }
}

/// The command beneath the line of an explanation whose text has `part`.
///
/// # Errors
/// If there is no such line, or nothing beneath it.
pub fn suggested_command<'a>(explanation: &'a Value, part: &str) -> anyhow::Result<&'a str> {
    let lines = explanation["lines"].as_array().context("no lines")?;
    let has = |line: &&Value| line["text"].as_str().is_some_and(|text| text.contains(part));
    let line = lines
        .iter()
        .find(has)
        .with_context(|| format!("no line has {part:?}: {explanation:#}"))?;
    line["command"]
        .as_str()
        .with_context(|| format!("no command: {line:#}"))
}
