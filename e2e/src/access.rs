//! Access to the API server: clients, identities, kubeconfig files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::Value;

use crate::kubeconfig::{self, Identity};
use crate::metrics::Metrics;
use crate::pki::{Pair, Pki};

/// Access to one API server, as the admin or as another user. Cheap to clone, and
/// bound to no runtime.
#[derive(Clone, Debug)]
pub struct Access {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    server: String,
    ca: String,
    admin: Pair,
    config: kube::Config,
    dir: PathBuf,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
}

impl Access {
    pub(crate) async fn new(server: &str, pki: &Pki, dir: &Path, assets: &Path) -> anyhow::Result<Self> {
        let admin = kubeconfig::kubeconfig(server, &pki.ca, &Identity::Certificate(&pki.admin));
        let path = dir.join("admin.kubeconfig");
        kubeconfig::write(&path, &admin)?;
        Ok(Self {
            inner: Arc::new(Inner {
                server: server.to_owned(),
                ca: pki.ca.clone(),
                admin: pki.admin.clone(),
                config: kubeconfig::client_config(admin).await?,
                dir: dir.to_owned(),
                kubeconfig: path,
                kubectl: assets.join("kubectl"),
            }),
        })
    }

    /// A new client for the admin. It belongs to the runtime it is made in, so make one per
    /// test. It does not retry: a test sees what the server said first.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn client(&self) -> Client {
        client(self.config())
    }

    /// A new client that acts as another user, by impersonation.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> Client {
        client(self.config_as(user, groups))
    }

    /// The configuration of such a client.
    pub fn config_as(&self, user: &str, groups: &[&str]) -> kube::Config {
        let mut config = self.config();
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(groups.iter().map(|&group| group.to_owned()).collect());
        config
    }

    /// A new client for a service account, which may do what RBAC lets it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn client_as_service_account(&self, namespace: &str, name: &str) -> Client {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let group = format!("system:serviceaccounts:{namespace}");
        self.client_as(&user, &["system:serviceaccounts", &group, "system:authenticated"])
    }

    /// A new client that admission takes for taskgate itself, and that may do everything: for fixtures that write what only
    /// taskgate writes.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn client_as_taskgate(&self) -> Client {
        self.client_as(crate::gate::GATE_USER, &["system:masters"])
    }

    /// The admin's client configuration, to be changed at will.
    pub fn config(&self) -> kube::Config {
        self.inner.config.clone()
    }

    /// `https://127.0.0.1:<port>`
    pub fn server(&self) -> &str {
        &self.inner.server
    }

    /// The authority behind the API server's certificate, PEM.
    pub fn ca(&self) -> &str {
        &self.inner.ca
    }

    /// The admin's kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        &self.inner.kubeconfig
    }

    pub(crate) fn kubectl_path(&self) -> &Path {
        &self.inner.kubectl
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// A kubeconfig file that acts as another user, by impersonation.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn kubeconfig_as(&self, user: &str, groups: &[&str]) -> anyhow::Result<PathBuf> {
        let admin = &self.inner.admin;
        self.write_kubeconfig(
            &format!("as-{}", user.replace(['/', ':'], "-")),
            &Identity::Impersonated { admin, user, groups },
        )
    }

    /// A kubeconfig file with a token of an existing service account, valid for a day: who
    /// uses it may do what RBAC lets it, as in a pod.
    ///
    /// # Errors
    /// If the service account does not exist.
    pub async fn kubeconfig_of_service_account(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = self.token_of_service_account(namespace, name).await?;
        self.write_kubeconfig(&format!("{namespace}-{name}"), &Identity::Token(&token))
    }

    /// A token of a service account, for a day.
    pub(crate) async fn token_of_service_account(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let spec = TokenRequestSpec {
            expiration_seconds: Some(86_400),
            ..Default::default()
        };
        let request = TokenRequest {
            spec,
            ..Default::default()
        };
        let requested = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("a token for service account {namespace}/{name}"))?;
        let status = requested
            .status
            .context("the token request was answered without a status")?;
        Ok(status.token)
    }

    pub(crate) fn write_kubeconfig(&self, name: &str, identity: &Identity<'_>) -> anyhow::Result<PathBuf> {
        let Inner { server, ca, dir, .. } = &*self.inner;
        let path = dir.join(format!("{name}.kubeconfig"));
        kubeconfig::write(&path, &kubeconfig::kubeconfig(server, ca, identity))?;
        Ok(path)
    }

    /// GET of any path of the API server, as text.
    ///
    /// # Errors
    /// If it answers anything but 2xx.
    pub async fn get_raw(&self, path: &str) -> kube::Result<String> {
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        self.client().request_text(request).await
    }

    /// GET of any path of the API server, as JSON.
    ///
    /// # Errors
    /// If it answers anything but 2xx, or no JSON.
    pub async fn get_json(&self, path: &str) -> kube::Result<Value> {
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        self.client().request(request).await
    }

    /// What the API server measures of itself, webhooks among it.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn apiserver_metrics(&self) -> anyhow::Result<Metrics> {
        Ok(Metrics::parse(&self.get_raw("/metrics").await?))
    }
}

fn client(config: kube::Config) -> Client {
    Client::try_from(config).expect("certificates of our own making are valid")
}
