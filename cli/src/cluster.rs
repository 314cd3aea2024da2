//! Connections to the API server, and what its answers mean: for `serve` and for every command that asks a cluster.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use http::{HeaderMap, header::DATE};
use jiff::{Timestamp, fmt::rfc2822};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment,
    authentication::v1::SelfSubjectReview,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use taskgate_api::{kelos, keys};
use taskgate_cache::served_version;

use crate::{
    defaults,
    exit::UsageError,
    flags::{ClusterArgs, ConnectionArgs, InstallationArgs},
};

/// How long a command waits for an API server that does not answer, without `--request-timeout`.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The resource of a kind that has no type here, in one version.
pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// The resource of a kind with a type.
pub(crate) fn resource_of<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// A connection to the API server as the user of the kubeconfig, with the namespace that the flags name.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl ClusterArgs {
    /// Prepares the connection; sends no request. Its namespace is that of the context. A watch may be silent for a long time.
    /// Errors when there is no kubeconfig, or it cannot be used.
    pub(crate) async fn connect(&self, watches: bool) -> Result<Connection> {
        let mut config = config(self.kubeconfig.as_deref(), self.context.as_deref()).await?;
        let limit = Some(self.request_timeout.unwrap_or(COMMAND_TIMEOUT)).filter(|limit| !limit.is_zero());
        config.connect_timeout = limit;
        config.read_timeout = limit.filter(|_| !watches);
        if self.as_user.is_some() {
            config.auth_info.impersonate.clone_from(&self.as_user);
            config.auth_info.impersonate_groups = Some(self.as_groups.clone());
        }
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).context("preparing the connection to the API server")?;
        Ok(Connection { client, namespace })
    }
}

impl ConnectionArgs {
    /// A connection for requests.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let connection = self.cluster.connect(false).await?;
        Ok(self.in_namespace(connection))
    }

    /// A connection for watches, which may be silent for a long time.
    pub(crate) async fn connect_to_watch(&self) -> Result<Connection> {
        let connection = self.cluster.connect(true).await?;
        Ok(self.in_namespace(connection))
    }

    fn in_namespace(&self, mut connection: Connection) -> Connection {
        connection.namespace = self.namespace.clone().unwrap_or(connection.namespace);
        connection
    }
}

impl InstallationArgs {
    /// A connection whose namespace is taskgate's.
    pub(crate) async fn connect(&self, cluster: &ClusterArgs) -> Result<Connection> {
        let mut connection = cluster.connect(false).await?;
        connection.namespace = self.namespace(&connection).await?;
        Ok(connection)
    }

    /// The namespace that taskgate runs in. Errors when there are several installations and no flag names one.
    ///
    /// RBAC: `list` on mutatingwebhookconfigurations or on deployments. Without these rights the default is returned.
    pub(crate) async fn namespace(&self, connection: &Connection) -> Result<String> {
        if let Some(namespace) = &self.taskgate_namespace {
            return Ok(namespace.clone());
        }
        for resource in [
            resource_of::<MutatingWebhookConfiguration>(),
            resource_of::<Deployment>(),
        ] {
            let found = match connection.api(&resource, None).list(&with_label()).await {
                Ok(found) => found.items,
                // Forbidden, for example.
                Err(kube::Error::Api(_)) => continue,
                // The request after this one reports it.
                Err(_) => break,
            };
            let namespaces: BTreeSet<_> = found.iter().filter_map(namespace_of_installation).collect();
            let mut names = namespaces.iter();
            match (names.next(), names.next()) {
                (Some(one), None) => return Ok(one.clone()),
                (Some(_), Some(_)) => bail!(UsageError(format!(
                    "taskgate is installed in the namespaces {}: name one of them with --taskgate-namespace",
                    namespaces.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
                ))),
                (None, _) => {}
            }
        }
        Ok(defaults::NAMESPACE.to_owned())
    }
}

/// Selects the objects of installations of taskgate.
pub(crate) fn with_label() -> ListParams {
    ListParams::default().labels(&format!("{}={}", keys::PART_OF, keys::PART_OF_TASKGATE))
}

/// The namespace of the installation that `object` belongs to: its own, or that of the Service that its webhooks call.
fn namespace_of_installation(object: &DynamicObject) -> Option<String> {
    let called = || object.data["webhooks"][0]["clientConfig"]["service"]["namespace"].as_str();
    object.namespace().or_else(|| called().map(ToOwned::to_owned))
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

/// The time of a response by its header `Date`, in whole seconds.
pub(crate) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    rfc2822::parse(date).ok().map(|date| date.timestamp())
}

/// The configuration that the flags, the environment or the pod state.
pub(crate) async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config> {
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
