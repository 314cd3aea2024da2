//! How a command reaches the cluster: kubectl's flags, with kubectl's meaning.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::args::object_name;

/// How long somebody at a terminal is kept waiting for an API server that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which cluster, and which namespace of it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConnectionArgs {
    /// The kubeconfig to use. Absent: $KUBECONFIG, else ~/.kube/config, else the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Absent: its current one.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The namespace. Absent: that of the context, else "default".
    #[arg(short, long, value_name = "NAME", value_parser = object_name)]
    pub(crate) namespace: Option<String>,
}

/// A way to the cluster.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Acts as the user of the kubeconfig.
    pub(crate) client: Client,
    /// The namespace that is meant.
    pub(crate) namespace: String,
}

impl ConnectionArgs {
    /// Prepares the way. Errors when there is no kubeconfig, or it cannot be used; the API server is not asked anything.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        self.connect_for(Some(PATIENCE)).await
    }

    /// The same, to watch: nothing may come for a long time, and that is no fault.
    pub(crate) async fn connect_to_watch(&self) -> Result<Connection> {
        self.connect_for(None).await
    }

    async fn connect_for(&self, silence: Option<Duration>) -> Result<Connection> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = silence;
        let namespace = self.namespace.clone().unwrap_or(config.default_namespace.clone());
        let client = Client::try_from(config).context("preparing the connection to the API server")?;
        Ok(Connection { client, namespace })
    }

    async fn config(&self) -> Result<Config> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        if let Some(path) = &self.kubeconfig {
            let file = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
            return Config::from_custom_kubeconfig(file, &options)
                .await
                .with_context(|| format!("using {}", path.display()));
        }
        if self.context.is_some() {
            return Config::from_kubeconfig(&options).await.context("using the kubeconfig");
        }
        Config::infer()
            .await
            .context("finding the API server: neither a kubeconfig nor in a pod")
    }
}

impl Connection {
    /// The name by which the API server knows us.
    pub(crate) async fn user(&self) -> Result<String> {
        let reviews = Api::<SelfSubjectReview>::all(self.client.clone());
        let review = reviews
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await;
        let user = review.map_err(said)?.status.and_then(|status| status.user_info);
        user.and_then(|user| user.username)
            .ok_or_else(|| anyhow!("the API server does not say who asks"))
    }
}

/// What the API server said, in its own words where it has some.
pub(crate) fn said(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => anyhow!("{}", status.message),
        other => other.into(),
    }
}
