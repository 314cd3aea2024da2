//! Connections to the API server, and what its answers mean: for `serve` and for every command that asks a cluster.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use http::{
    Request,
    header::{HeaderValue, USER_AGENT},
};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api, Client, Config, Resource,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PatchParams, PostParams},
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use taskgate_api::kelos;
use taskgate_cache::served_version;
use taskgate_webhook::{ConfigurationName, rules::CONFIGURATION};
use tokio::time::timeout;
use tower::{BoxError, service_fn};

use crate::{defaults, flags::object_name};

/// How long `serve` waits for a response to begin. The API server itself gives up after 60 s.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(65);
/// How long a command waits for an API server that does not answer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The resource of a kind that has no type here, in one version.
pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// The resource of a kind with a type.
pub(crate) fn resource_of<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// Which cluster: kubectl's flags, with kubectl's meaning.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClusterArgs {
    /// The kubeconfig to use. Absent: $KUBECONFIG, else ~/.kube/config, else the pod's service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Absent: its current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Which cluster, and which namespace of it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConnectionArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The namespace. Absent: that of the context, else "default".
    #[arg(short, long, value_name = "NAME", value_parser = object_name)]
    pub(crate) namespace: Option<String>,
}

/// Which cluster, and which installation of taskgate in it.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstallationArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The namespace that taskgate runs in.
    #[arg(short, long, value_name = "NAME", default_value = defaults::NAMESPACE, value_parser = object_name)]
    pub(crate) namespace: String,
    /// The name of its webhook configurations.
    #[arg(long, value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
}

/// A connection to the API server as the user of the kubeconfig, with the namespace that the flags name.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl ClusterArgs {
    /// Prepares the connection; sends no request. Errors when there is no kubeconfig, or it cannot be used.
    async fn connect(&self, namespace: Option<&String>, read_timeout: Option<Duration>) -> Result<Connection> {
        let mut config = config(self.kubeconfig.as_deref(), self.context.as_deref()).await?;
        config.connect_timeout = Some(COMMAND_TIMEOUT);
        config.read_timeout = read_timeout;
        let namespace = namespace.unwrap_or(&config.default_namespace).clone();
        let client = Client::try_from(config).context("preparing the connection to the API server")?;
        Ok(Connection { client, namespace })
    }
}

impl ConnectionArgs {
    /// A connection for requests.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        self.cluster
            .connect(self.namespace.as_ref(), Some(COMMAND_TIMEOUT))
            .await
    }

    /// A connection for watches, which may be silent for a long time.
    pub(crate) async fn connect_to_watch(&self) -> Result<Connection> {
        self.cluster.connect(self.namespace.as_ref(), None).await
    }
}

impl InstallationArgs {
    /// A connection whose namespace is taskgate's.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        self.cluster.connect(Some(&self.namespace), Some(COMMAND_TIMEOUT)).await
    }
}

impl Connection {
    /// The objects of a kind in `namespace`, or in the whole cluster.
    pub(crate) fn api(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    /// The resource of a kind in the first of `versions` that the API server serves. `None`: it serves none of them.
    pub(crate) async fn served(
        &self,
        group: &str,
        versions: &[&'static str],
        kind: &str,
        plural: &str,
    ) -> Result<Option<ApiResource>> {
        let version = served_version(&self.client, group, versions).await;
        let version = version.map_err(api_error)?;
        Ok(version.map(|version| resource(group, version, kind, plural)))
    }

    /// The resource of a kind of Kelos in the newest version that the API server serves. `None`: Kelos is not installed.
    pub(crate) async fn kelos(&self, kind: &str, plural: &str) -> Result<Option<ApiResource>> {
        self.served(kelos::GROUP, &kelos::TASK_VERSIONS, kind, plural).await
    }

    /// One object as JSON. `None`: it, or its kind, does not exist.
    pub(crate) async fn get(
        &self,
        resource: &ApiResource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>> {
        match self.api(resource, namespace).get(name).await {
            Ok(found) => serde_json::to_value(found).map(Some).context("reading JSON"),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(api_error(error)),
        }
    }

    /// The user name that the API server authenticates.
    pub(crate) async fn user(&self) -> Result<String> {
        let reviews = Api::<SelfSubjectReview>::all(self.client.clone());
        let review = reviews
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await;
        let user = review.map_err(api_error)?.status.and_then(|status| status.user_info);
        user.and_then(|user| user.username)
            .ok_or_else(|| anyhow!("the API server returns no user name"))
    }
}

/// The client of `taskgate serve`. Its parts retry by their own rules; the client itself retries nothing, and waits for no
/// response without end.
pub(crate) async fn serve_client(kubeconfig: Option<&Path>) -> Result<Client> {
    let mut config = config(kubeconfig, None).await?;
    // The name in audit logs and managed fields.
    let agent = HeaderValue::from_static(concat!("taskgate/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    // A write that took effect but was answered with an error would conflict with itself when it is sent again; and a write that
    // waits for its retry may outlive the Lease.
    config.default_retry = false;
    let client = Client::try_from(config).context("preparing the connection to the API server")?;
    Ok(with_timeout(client, RESPONSE_TIMEOUT))
}

/// `client`, which fails when a response does not begin within `limit`.
fn with_timeout(client: Client, limit: Duration) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move {
            let response = timeout(limit, client.send(request)).await;
            response.map_err(BoxError::from)?.map_err(BoxError::from)
        }
    });
    Client::new(service, namespace)
}

async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config> {
    let options = KubeConfigOptions {
        context: context.map(ToOwned::to_owned),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = kubeconfig {
        let file = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
        return Config::from_custom_kubeconfig(file, &options)
            .await
            .with_context(|| format!("using {}", path.display()));
    }
    if context.is_some() {
        return Config::from_kubeconfig(&options).await.context("using the kubeconfig");
    }
    Config::infer()
        .await
        .context("finding the API server: neither a kubeconfig nor in a pod")
}

/// An error of a request, in the API server's own words where it has some.
pub(crate) fn api_error(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => anyhow!("{}", status.message),
        other => other.into(),
    }
}

/// Whether the API server answered that the object, or its kind, does not exist.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the object was changed meanwhile.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// The result of a deletion; an object that does not exist is deleted.
pub(crate) fn deleted<T>(result: kube::Result<T>) -> Result<()> {
    match result {
        Err(error) if !is_not_found(&error) => Err(api_error(error)),
        _ => Ok(()),
    }
}

/// The flag of commands that write.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct DryRun {
    /// Ask the API server, but change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl DryRun {
    pub(crate) fn post(self) -> PostParams {
        PostParams {
            dry_run: self.dry_run,
            ..PostParams::default()
        }
    }

    pub(crate) fn patch(self, params: PatchParams) -> PatchParams {
        PatchParams {
            dry_run: self.dry_run,
            ..params
        }
    }

    pub(crate) fn delete(self, params: DeleteParams) -> DeleteParams {
        DeleteParams {
            dry_run: self.dry_run,
            ..params
        }
    }

    /// The end of a line that reports a change.
    pub(crate) fn suffix(self) -> &'static str {
        if self.dry_run { " (dry run)" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use k8s_openapi::api::core::v1::Namespace;
    use std::future::pending;

    #[tokio::test]
    async fn a_request_without_a_response_times_out() {
        let silent = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, BoxError>>());
        let client = with_timeout(Client::new(silent, "default"), Duration::from_millis(1));
        let error = Api::<Namespace>::all(client).get("default").await.unwrap_err();
        assert!(matches!(error, kube::Error::Service(_)), "{error:?}");
    }
}
