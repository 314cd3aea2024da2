//! kubectl, as users have it: what it prints is part of what they see.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::access::Access;

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
#[must_use]
pub struct Output {
    /// The command line, without the path of the binary.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error; kubectl prints admission warnings here.
    pub stderr: String,
}

impl Output {
    /// Its standard output, if it succeeded.
    ///
    /// # Errors
    /// With the command and its standard error, if it failed.
    pub fn stdout_ok(self) -> anyhow::Result<String> {
        let Self {
            command,
            status,
            stdout,
            stderr,
        } = self;
        ensure!(status.success(), "`{command}` failed ({status}): {}", stderr.trim_end());
        Ok(stdout)
    }

    /// Its standard output as JSON, if it succeeded.
    ///
    /// # Errors
    /// If it failed, or printed no JSON.
    pub fn json(self) -> anyhow::Result<Value> {
        let command = self.command.clone();
        serde_json::from_str(&self.stdout_ok()?).with_context(|| format!("`{command}` printed no JSON"))
    }

    /// Its standard error, if it failed: what the user is told.
    ///
    /// # Errors
    /// With the command and its standard output, if it succeeded.
    pub fn stderr_failed(self) -> anyhow::Result<String> {
        let Self {
            command,
            status,
            stdout,
            stderr,
        } = self;
        ensure!(
            !status.success(),
            "`{command}` should have failed: {}",
            stdout.trim_end()
        );
        Ok(stderr)
    }

    /// The admission warnings in its standard error, without the `Warning: `.
    pub fn warnings(&self) -> Vec<&str> {
        self.stderr
            .lines()
            .filter_map(|line| line.strip_prefix("Warning: "))
            .collect()
    }
}

/// Runs a command that reads nothing.
pub(crate) async fn run(command: &mut Command) -> anyhow::Result<Output> {
    let program = command.as_std().get_program().to_owned();
    let program = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy();
    let args: Vec<_> = command.as_std().get_args().map(OsStr::to_string_lossy).collect();
    let line = format!("{program} {}", args.join(" "));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| line.clone())?;
    Ok(Output {
        command: line,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Access {
    /// Runs kubectl as the admin.
    ///
    /// # Errors
    /// If it cannot be run; that it fails is in the [`Output`].
    pub async fn kubectl<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> anyhow::Result<Output> {
        self.kubectl_with_input(args, "").await
    }

    /// Runs kubectl as the admin, with something to read: `kubectl apply -f -`.
    ///
    /// # Errors
    /// If it cannot be run; that it fails is in the [`Output`].
    pub async fn kubectl_with_input<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        args: I,
        input: &str,
    ) -> anyhow::Result<Output> {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let line: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        let command = format!("kubectl {}", line.join(" "));
        let mut child = Command::new(self.kubectl_path())
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            // What it remembers of an API server must not outlive it.
            .env("KUBECACHEDIR", self.dir().join("kubectl-cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| command.clone())?;
        let mut stdin = child.stdin.take().context("kubectl has no stdin")?;
        let feed = async move {
            // A command that does not read has no use for its input.
            drop(stdin.write_all(input.as_bytes()).await);
        };
        let ((), output) = tokio::join!(feed, child.wait_with_output());
        let output = output.with_context(|| command.clone())?;
        Ok(Output {
            command,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
