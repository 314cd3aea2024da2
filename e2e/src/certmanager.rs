//! The real cert-manager beside a control plane: its issuing controllers and its CA injector, as one process.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{ControlPlane, Process, ProcessSpec, gomodule::gomodule, tool};

/// Go module that cert-manager, and its CRDs, come from.
const MODULE: &str = "github.com/cert-manager/cert-manager";
const NAMESPACE: &str = "cert-manager";

/// A running cert-manager. Dropping it ends its process; what is installed stays.
#[derive(Debug)]
pub struct CertManager {
    process: Process,
}

impl CertManager {
    /// Installs cert-manager's CRDs and starts its controllers. They work through what they find as they come up: whoever
    /// needs a certificate waits for that.
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

    /// What taskgate's documentation tells to apply: a CA of the namespace's own, an issuer that signs with it, and an ECDSA
    /// certificate called `certificate` for `names`, in the Secret `secret`.
    pub fn certificate(namespace: &str, certificate: &str, secret: &str, dns: &[&str], ips: &[&str]) -> String {
        let object = |kind: &str, name: &str, spec: Value| {
            let metadata = json!({"name": name, "namespace": namespace});
            json!({"apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": metadata, "spec": spec}).to_string()
        };
        let key = json!({"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"});
        [
            object("Issuer", "taskgate-bootstrap", json!({"selfSigned": {}})),
            object(
                "Certificate",
                "taskgate-ca",
                json!({"isCA": true, "commonName": "taskgate-ca", "secretName": "taskgate-ca", "privateKey": key,
                    "issuerRef": {"name": "taskgate-bootstrap", "kind": "Issuer"}}),
            ),
            object("Issuer", "taskgate-ca", json!({"ca": {"secretName": "taskgate-ca"}})),
            object(
                "Certificate",
                certificate,
                json!({"secretName": secret, "dnsNames": dns, "ipAddresses": ips, "privateKey": key,
                    "issuerRef": {"name": "taskgate-ca", "kind": "Issuer"}}),
            ),
        ]
        .join("\n---\n")
    }
}
