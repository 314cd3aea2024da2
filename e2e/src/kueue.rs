//! The real Kueue beside a control plane: installed as its own manifests say, running as a process on loopback.

use std::path::Path;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};

use crate::{ControlPlane, PATIENCE, Process, ProcessSpec, eventually, free_port, gomodule::gomodule, tool};

/// The namespace that Kueue runs in.
pub const KUEUE_NAMESPACE: &str = "kueue-system";

/// Go module that Kueue, and its manifests, come from.
const MODULE: &str = "sigs.k8s.io/kueue";
const SERVICE: &str = "kueue-webhook-service";
const SERVICE_ACCOUNT: &str = "kueue-controller-manager";
const CERTIFICATE: &str = "kueue-webhook-server-cert";
const CONFIG_KEY: &str = "controller_manager_config.yaml";

/// A running Kueue. Dropping it ends its process; what is installed stays.
#[derive(Debug)]
pub struct Kueue {
    process: Process,
}

/// How a [`Kueue`] is to be.
#[derive(Clone, Debug)]
#[must_use]
pub struct KueueBuilder {
    configuration: Value,
}

impl Default for KueueBuilder {
    fn default() -> Self {
        Self {
            configuration: json!({}),
        }
    }
}

impl KueueBuilder {
    /// Sets a field of Kueue's `Configuration`.
    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.configuration[field] = value;
        self
    }

    /// Installs Kueue, starts it, and waits until it answers.
    ///
    /// Everything is as `config/default` of Kueue's own module renders it, but for where it listens, and for what this
    /// control plane has no use for: its Deployment, its visibility API, and the webhooks of kinds that are not here.
    ///
    /// # Errors
    /// If anything of that fails; with the end of Kueue's log if it is Kueue that fails.
    pub async fn start(self, cp: &ControlPlane) -> anyhow::Result<Kueue> {
        let dir = cp.dir().join("kueue");
        let certificates = dir.join("certs");
        std::fs::create_dir_all(&certificates)?;
        let (port, health) = (free_port()?, free_port()?);
        let own = json!({
            "health": {"healthProbeBindAddress": format!("127.0.0.1:{health}")},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": "127.0.0.1", "port": port, "certDir": certificates},
            "leaderElection": {"leaderElect": false},
            "integrations": {"frameworks": ["batch/job"]},
            // Its directory for certificates is fixed, outside of ours.
            "featureGates": {"VisibilityOnDemand": false},
        });
        let configuration = self.install(cp, &own, port).await?;
        let file = dir.join("config.yaml");
        std::fs::write(&file, configuration)?;
        let kubeconfig = cp
            .kubeconfig_of_service_account(KUEUE_NAMESPACE, SERVICE_ACCOUNT)
            .await?;
        let spec = ProcessSpec::new("kueue", tool("kueue").await?)
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--config={}", file.display()))
            .arg("--zap-log-level=2")
            .ready_at(format!("http://127.0.0.1:{health}/readyz"));
        // It waits for its certificate to be mounted.
        let (process, ()) = tokio::try_join!(cp.spawn(spec), mount(cp, &certificates))?;
        Ok(Kueue { process })
    }

    /// Applies Kueue's manifests; returns its configuration.
    async fn install(&self, cp: &ControlPlane, own: &Value, port: u16) -> anyhow::Result<String> {
        let overlay = gomodule(MODULE, "").await?.join("config/default");
        let rendered = cp
            .kubectl(["kustomize", &overlay.display().to_string()])
            .await?
            .stdout_ok()?;
        let mut crds = Vec::new();
        let mut others = Vec::new();
        let mut configuration = None;
        for document in rendered.split("\n---\n") {
            if document.contains("\nkind: CustomResourceDefinition\n") {
                // As text: they are large.
                crds.push(document.replace("path: /convert", &format!("path: /convert\n          port: {port}")));
                continue;
            }
            let mut object: Value = serde_saphyr::from_str(document).context("a manifest of Kueue")?;
            if !adapt(&mut object, port) {
                continue;
            }
            if let Some(text) = object.pointer_mut(&format!("/data/{CONFIG_KEY}")) {
                let mut read: Value = serde_saphyr::from_str(text.as_str().unwrap_or_default())?;
                for (field, value) in [own, &self.configuration]
                    .into_iter()
                    .filter_map(Value::as_object)
                    .flatten()
                {
                    read[field] = value.clone();
                }
                *text = read.to_string().into();
                configuration = Some(read.to_string());
            }
            others.push(object.to_string());
        }
        cp.install_crds(&crds.join("\n---\n")).await?;
        cp.apply_yaml(&others.join("\n---\n")).await?;
        configuration.context("Kueue's manifests have no configuration")
    }
}

impl Kueue {
    /// How it is to be, before it is started.
    pub fn builder() -> KueueBuilder {
        KueueBuilder::default()
    }

    /// Installs and starts it, as it is by default.
    ///
    /// # Errors
    /// As [`KueueBuilder::start`].
    pub async fn start(cp: &ControlPlane) -> anyhow::Result<Self> {
        Self::builder().start(cp).await
    }

    /// Its process, for tests that break it.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Makes a manifest fit this control plane; false if there is no place for it.
fn adapt(object: &mut Value, port: u16) -> bool {
    match object["kind"].as_str() {
        Some("Deployment" | "APIService") => return false,
        Some("Service") => {
            if object["metadata"]["name"] != SERVICE {
                return false;
            }
            object["spec"] = json!({"type": "ExternalName", "externalName": "127.0.0.1"});
        }
        Some("MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            let webhooks = object["webhooks"]
                .as_array_mut()
                .map(std::mem::take)
                .unwrap_or_default();
            object["webhooks"] = webhooks
                .into_iter()
                .filter(|webhook| {
                    let rules = webhook["rules"].as_array().into_iter().flatten();
                    let mut groups = rules.filter_map(|rule| rule["apiGroups"][0].as_str());
                    groups.any(|group| matches!(group, "kueue.x-k8s.io" | "batch"))
                })
                .map(|mut webhook| {
                    webhook["clientConfig"]["service"]["port"] = port.into();
                    webhook
                })
                .collect();
        }
        _ => {}
    }
    true
}

/// Plays the kubelet: writes Kueue's certificate, which it makes itself, where Kueue reads it.
async fn mount(cp: &ControlPlane, directory: &Path) -> anyhow::Result<()> {
    let secrets: Api<Secret> = Api::namespaced(cp.client(), KUEUE_NAMESPACE);
    let data = eventually("Kueue has made its certificate", PATIENCE, || async {
        let data = secrets.get(CERTIFICATE).await?.data.unwrap_or_default();
        ensure!(data.contains_key("tls.key"), "{:?}", data.keys());
        Ok(data)
    })
    .await?;
    for (name, content) in data {
        std::fs::write(directory.join(name), content.0)?;
    }
    Ok(())
}
