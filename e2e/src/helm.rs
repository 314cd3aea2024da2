//! Helm, as users have it.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;

use crate::assets::tool;
use crate::{ControlPlane, Output};

impl ControlPlane {
    /// Runs Helm as the admin.
    ///
    /// # Errors
    /// If it cannot be run; that it fails is in the [`Output`].
    pub async fn helm<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> anyhow::Result<Output> {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let line: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        let command = format!("helm {}", line.join(" "));
        let own = self.dir().join("helm");
        let output = Command::new(tool("helm").await?)
            .args(&args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HELM_CACHE_HOME", &own)
            .env("HELM_CONFIG_HOME", &own)
            .env("HELM_DATA_HOME", &own)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| command.clone())?;
        Ok(Output {
            command,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
