//! How an issue source is accessed: a spawner's Workspace, and the proxy or the token that the Workspace names (kelos §4).
//!
//! Each namespace grants the right to read its token, for one Secret by name. A Workspace with a GitHub proxy needs none.

use std::{collections::HashMap, fmt::Debug, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde::de::DeserializeOwned;
use serde_json::Value;
use taskgate_policy::source::{IssueSource, Repository, SourceKey, ghproxy_service};
use tokio::time::Instant;
use tracing::debug;

use super::{SourceConfig, client::AuthToken, error::SourceError, github::Route};
use crate::{
    context::Context,
    error::is_forbidden,
    kubernetes::{self, json_of},
};

/// The key of the token in a Workspace's Secret.
const TOKEN: &str = "GITHUB_TOKEN";
/// A key that only the Secret of a GitHub App has.
const APP: &str = "privateKey";

/// Where a spawner's items are read.
#[derive(Clone)]
pub(super) struct SourceLocation {
    pub(super) source: IssueSource,
    pub(super) repository: Repository,
    pub(super) route: Route,
}

/// Finds the location of a spawner's items.
///
/// RBAC: `get` on workspaces; `get` on the one Secret, where the Workspace has no proxy.
pub(super) async fn locate(
    context: &Context,
    config: &SourceConfig,
    namespace: &str,
    spawner: &str,
) -> Result<SourceLocation, SourceError> {
    let found = context
        .cache
        .spawners()
        .get(namespace, spawner)
        .ok_or(SourceError::AccessUnknown)?;
    let source = IssueSource::of(&json_of(&found.object))
        .map_err(|why| SourceError::Unsupported(format!("TaskSpawner {namespace}/{spawner}: {}", why.0)))?;
    let own = source.repository.as_deref();
    let (repository, route) = of_workspace(context, config, namespace, &source.workspace, own).await?;
    Ok(SourceLocation {
        source,
        repository,
        route,
    })
}

/// The route that a Workspace names, and the repository: `own` if given, else the Workspace's.
pub(super) async fn of_workspace(
    context: &Context,
    config: &SourceConfig,
    namespace: &str,
    name: &str,
    own: Option<&str>,
) -> Result<(Repository, Route), SourceError> {
    let missing = || SourceError::Unsupported(format!("Workspace {namespace}/{name} does not exist"));
    let forbidden = || SourceError::Forbidden("taskgate may not get workspaces.kelos.dev".to_owned());
    let workspace = json_of(&read(&context.workspaces(namespace), name, missing, forbidden).await?);
    let text = |pointer: &str| workspace.pointer(pointer).and_then(Value::as_str);
    let repository = Repository::of(own, text("/spec/repo").unwrap_or_default()).ok_or_else(|| {
        SourceError::Unsupported(format!("Workspace {namespace}/{name} names no repository of GitHub"))
    })?;
    let is_proxy = workspace.pointer("/spec/ghproxy").is_some_and(Value::is_object);
    let route = if is_proxy {
        let service = ghproxy_service(name).ok_or_else(|| {
            SourceError::Unsupported(format!(
                "the GitHub proxy of Workspace {namespace}/{name} has too long a name"
            ))
        })?;
        let base = config.ghproxy_url.replace("{service}", &service);
        Route {
            base: base.replace("{namespace}", namespace),
            token: None,
            is_proxy,
        }
    } else {
        // Before the token is read: no other host gets it.
        let base = config.api_of(&repository)?;
        let token = token(context, namespace, text("/spec/secretRef/name")).await?;
        Route { base, token, is_proxy }
    };
    Ok((repository, route))
}

/// The route with a Secret of the namespace, or without any. Only to the API that taskgate itself is configured with: a user who
/// names a repository must not choose which host gets the token.
///
/// RBAC: `get` on the one Secret.
pub(super) async fn of_secret(
    context: &Context,
    config: &SourceConfig,
    namespace: &str,
    secret: Option<&str>,
    repository: &str,
) -> Result<(Repository, Route), SourceError> {
    let repository = Repository::parse(repository)
        .ok_or_else(|| SourceError::Unsupported("its repository is none of GitHub's".to_owned()))?;
    let elsewhere = repository.enterprise_api().filter(|api| *api != config.github_api);
    if let Some(api) = elsewhere {
        let configured = &config.github_api;
        let message = format!("its repository is at {api}, and taskgate asks {configured}");
        return Err(SourceError::Unsupported(message));
    }
    let token = token(context, namespace, secret).await?;
    let route = Route {
        base: config.github_api.clone(),
        token,
        is_proxy: false,
    };
    Ok((repository, route))
}

/// The token in the Secret `name`; none without a name.
async fn token(context: &Context, namespace: &str, name: Option<&str>) -> Result<Option<AuthToken>, SourceError> {
    let Some(name) = name else {
        return Ok(None);
    };
    let missing = |what: &str| SourceError::SecretMissing(format!("Secret {namespace}/{name} {what}"));
    let forbidden = || {
        SourceError::Forbidden(format!(
            "taskgate may not read Secret {namespace}/{name}: bind a Role in namespace {namespace} with \
             {{apiGroups: [\"\"], resources: [secrets], resourceNames: [{name}], verbs: [get]}} to its service account, or \
             give the Workspace a ghproxy"
        ))
    };
    let secrets = Api::<Secret>::namespaced(context.client.clone(), namespace);
    let secret = read(&secrets, name, || missing("does not exist"), forbidden).await?;
    let data = secret.data.unwrap_or_default();
    match data.get(TOKEN) {
        Some(token) => {
            let token = std::str::from_utf8(&token.0).ok().and_then(AuthToken::new);
            token
                .map(Some)
                .ok_or_else(|| missing("has a token that cannot stand in a header"))
        }
        None if data.contains_key(APP) => Err(SourceError::Unsupported(format!(
            "Secret {namespace}/{name} belongs to a GitHub App, for which taskgate makes no tokens: give the Workspace a \
             ghproxy"
        ))),
        None => Err(missing("has no key GITHUB_TOKEN")),
    }
}

/// Reads an object that names the access to a source.
async fn read<K: Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    name: &str,
    missing: impl FnOnce() -> SourceError,
    forbidden: impl FnOnce() -> SourceError,
) -> Result<K, SourceError> {
    match kubernetes::find(api, name).await {
        Ok(found) => found.ok_or_else(missing),
        Err(error) if is_forbidden(&error) => Err(forbidden()),
        Err(error) => {
            debug!(%error, name, "the access to an issue source could not be read");
            Err(SourceError::AccessUnknown)
        }
    }
}

/// The location of a spawner's items, or why there is none.
type Located = Result<Arc<SourceLocation>, SourceError>;

/// The locations by namespace and spawner, each looked up once per interval.
#[derive(Default)]
pub(super) struct LocationCache(HashMap<(String, String), (Instant, Located)>);

impl LocationCache {
    /// Removes what has expired.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.0.retain(|_, (until, _)| *until > now);
    }

    /// The location of `key`, and when it expires.
    pub(super) async fn find(
        &mut self,
        context: &Context,
        config: &SourceConfig,
        key: &SourceKey,
    ) -> (Instant, Located) {
        let spawner = (key.namespace.clone(), key.spawner.clone());
        if let Some(known) = self.0.get(&spawner) {
            return known.clone();
        }
        let located = locate(context, config, &key.namespace, &key.spawner)
            .await
            .map(Arc::new);
        let interval = match &located {
            Ok(location) => config.interval(&location.source),
            Err(_) => config.min_interval,
        };
        let found = (Instant::now() + interval, located);
        self.0.insert(spawner, found.clone());
        found
    }
}
