//! The binaries a control plane is made of, built on first use.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::Command;
use tokio::sync::OnceCell;

/// Directory of etcd, kube-apiserver, kube-controller-manager, kubectl and supervise.
///
/// `build.sh` decides: it builds, uses its cache, or honours `KUBEBUILDER_ASSETS`. Its
/// progress goes straight to the terminal, past libtest's capture: the first build takes
/// minutes, and a silent test would look stuck.
pub(crate) async fn assets() -> anyhow::Result<&'static Path> {
    static DIRECTORY: OnceCell<PathBuf> = OnceCell::const_new();
    let directory = DIRECTORY.get_or_try_init(|| build(None)).await?;
    Ok(directory)
}

/// Path of a further tool that `build.sh` knows: `kueue`, `kwok`, `helm`, `certmanager` or `promtool`, built on first use.
///
/// # Errors
/// If the tool is unknown or does not build.
pub async fn tool(name: &str) -> anyhow::Result<PathBuf> {
    Ok(build(Some(name)).await?.join(name))
}

async fn build(tool: Option<&str>) -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("controlplane/build.sh");
    let output = Command::new(&script)
        .args(tool)
        .env("BUILD_FOR_PID", std::process::id().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("running {}", script.display()))?;
    ensure!(output.status.success(), "{}: {}", script.display(), output.status);
    let stdout = String::from_utf8(output.stdout).context("build.sh printed a strange path")?;
    let directory = stdout.lines().last().context("build.sh printed no directory")?;
    Ok(PathBuf::from(directory))
}
