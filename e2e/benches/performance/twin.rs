//! The Go program that taskgate is compared with, in `e2e/benches/twin`.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use k8s_openapi::ByteString;
use taskgate_e2e::{ControlPlane, Process, ProcessSpec, free_port};
use tokio::process::Command;

/// Its webhooks, running.
pub(crate) struct TwinWebhooks {
    /// Where they are, without a path.
    pub(crate) url: String,
    /// What the API server verifies them with, as a `caBundle`.
    pub(crate) ca: String,
    _process: Process,
}

/// Builds it; its path.
async fn build() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("twin");
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/twin");
    let status = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(module)
        .status()
        .await?;
    ensure!(status.success(), "go build: {status}");
    Ok(program)
}

/// One of its commands, for `cp`.
pub(crate) async fn command(cp: &ControlPlane, command: &str) -> anyhow::Result<ProcessSpec> {
    let spec = ProcessSpec::new(format!("twin-{command}"), build().await?);
    Ok(spec.arg(command).env("KUBECONFIG", cp.kubeconfig()))
}

impl TwinWebhooks {
    pub(crate) async fn start(cp: &ControlPlane) -> anyhow::Result<Self> {
        let directory = cp.dir().join("twin");
        std::fs::create_dir_all(&directory)?;
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let certificate = certified.cert.pem();
        std::fs::write(directory.join("tls.crt"), &certificate)?;
        std::fs::write(directory.join("tls.key"), certified.signing_key.serialize_pem())?;
        let port = free_port()?;
        let url = format!("https://127.0.0.1:{port}");
        let spec =
            command(cp, "webhooks")
                .await?
                .args(["--port".to_owned(), port.to_string(), "--certificates".to_owned()]);
        let spec = spec
            .arg(directory.display().to_string())
            .ready_at(format!("{url}/readyz"));
        let process = cp.spawn(spec).await?;
        Ok(Self {
            url,
            ca: serde_json::to_value(ByteString(certificate.into_bytes()))?
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            _process: process,
        })
    }
}
