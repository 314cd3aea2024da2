//! Where the source of a Go module is on this machine: real components are installed from their own manifests.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;

/// The folder of `module`, in the version that the Go module in `controlplane/<folder>` asks for; fetched if need be.
pub(crate) async fn gomodule(module: &str, folder: &str) -> anyhow::Result<PathBuf> {
    let output = Command::new("go")
        .args(["mod", "download", "-json", module])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("controlplane").join(folder))
        .stdin(Stdio::null())
        .output()
        .await
        .context("running go")?;
    let told: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("what go says of {module}"))?;
    let directory = told["Dir"]
        .as_str()
        .with_context(|| format!("no source of {module}: {told}"))?;
    Ok(PathBuf::from(directory))
}
