//! The real cert-manager beside a control plane: its issuing controllers and its CA injector, as one process.

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::{ControlPlane, Process, ProcessSpec, gomodule::gomodule, tool};

/// Go module that cert-manager, and its CRDs, come from.
const MODULE: &str = "github.com/cert-manager/cert-manager";
const NAMESPACE: &str = "cert-manager";
/// What is shipped for cert-manager.
const CERTIFICATE: &str = include_str!("../../manifests/components/cert-manager/certificate.yaml");

/// A running cert-manager. Dropping it ends its process; what is installed stays.
#[derive(Debug)]
pub struct CertManager {
    process: Process,
}

impl CertManager {
    /// Installs cert-manager's CRDs and starts its controllers. They process existing objects as they start: a
    /// test that needs a certificate waits for it.
    ///
    /// # Errors
    /// If it cannot be built, installed or started.
    pub async fn start(cp: &ControlPlane) -> anyhow::Result<Self> {
        let crds = gomodule(MODULE, "certmanager").await?.join("deploy/crds");
        for entry in std::fs::read_dir(&crds).with_context(|| crds.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                cp.install_crds(&std::fs::read_to_string(&path)?).await?;
            }
        }
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        cp.apply_yaml(&namespace.to_string()).await?;
        let spec = ProcessSpec::new("cert-manager", tool("certmanager").await?)
            .arg(format!("--kubeconfig={}", cp.kubeconfig().display()));
        let process = cp.spawn(spec).await?;
        Ok(Self { process })
    }

    /// Its process, for tests that break it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What users apply: an authority of taskgate's own, and under it a certificate in Secret `taskgate-tls`. This one is good
    /// for loopback as well.
    ///
    /// # Errors
    /// If the manifest has no names.
    pub fn certificate() -> anyhow::Result<String> {
        let names = "  dnsNames:\n";
        ensure!(CERTIFICATE.contains(names), "{CERTIFICATE}");
        Ok(CERTIFICATE.replace(names, &format!("  ipAddresses: [127.0.0.1]\n{names}")))
    }
}
