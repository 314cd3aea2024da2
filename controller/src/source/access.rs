//! How an issue source is accessed: a spawner's Workspace, and the proxy or the token that the Workspace names (kelos §4).
//!
//! Each namespace grants the right to read its token, for one Secret by name. A Workspace with a GitHub proxy needs none.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::DynamicObject};
use serde_json::Value;
use taskgate_cache::kelos_resource;
use taskgate_policy::source::{IssueSource, Repository, SourceKey, ghproxy_service};
use tokio::time::Instant;

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

/// Finds the location of a spawner's items. `Err(None)`: the API server did not answer, which says nothing about the source.
///
/// RBAC: `get` on workspaces; `get` on the one Secret, where the Workspace has no proxy.
pub(super) async fn locate(
    context: &Context,
    config: &SourceConfig,
    namespace: &str,
    spawner: &str,
) -> Result<SourceLocation, Option<SourceError>> {
    let found = context.cache.spawners().get(namespace, spawner).ok_or(None)?;
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
) -> Result<(Repository, Route), Option<SourceError>> {
    let workspace = workspace(context, namespace, name).await?;
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
        let token = match text("/spec/secretRef/name") {
            Some(secret) => Some(token(context, namespace, secret).await?),
            None => None,
        };
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
) -> Result<(Repository, Route), Option<SourceError>> {
    let repository = Repository::parse(repository)
        .ok_or_else(|| SourceError::Unsupported("its repository is none of GitHub's".to_owned()))?;
    let elsewhere = repository.enterprise_api().filter(|api| *api != config.github_api);
    if let Some(api) = elsewhere {
        return Err(Some(SourceError::Unsupported(format!(
            "its repository is at {api}, and taskgate asks {}",
            config.github_api
        ))));
    }
    let token = match secret {
        Some(secret) => Some(token(context, namespace, secret).await?),
        None => None,
    };
    let route = Route {
        base: config.github_api.clone(),
        token,
        is_proxy: false,
    };
    Ok((repository, route))
}

async fn workspace(context: &Context, namespace: &str, name: &str) -> Result<Value, Option<SourceError>> {
    let kind = kelos_resource(&context.spawner_kind.version, "Workspace", "workspaces");
    let workspaces = Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, &kind);
    match kubernetes::find(&workspaces, name).await {
        Ok(Some(workspace)) => Ok(json_of(&workspace)),
        Ok(None) => Err(Some(SourceError::Unsupported(format!(
            "Workspace {namespace}/{name} does not exist"
        )))),
        Err(error) if is_forbidden(&error) => Err(Some(SourceError::Forbidden(
            "taskgate may not get workspaces.kelos.dev".to_owned(),
        ))),
        Err(error) => {
            tracing::debug!(%error, namespace, name, "a Workspace could not be read");
            Err(None)
        }
    }
}

async fn token(context: &Context, namespace: &str, name: &str) -> Result<AuthToken, Option<SourceError>> {
    let secrets = Api::<Secret>::namespaced(context.client.clone(), namespace);
    let missing = |what: &str| SourceError::SecretMissing(format!("Secret {namespace}/{name} {what}"));
    let data = match kubernetes::find(&secrets, name).await {
        Ok(Some(secret)) => secret.data.unwrap_or_default(),
        Ok(None) => return Err(Some(missing("does not exist"))),
        Err(error) if is_forbidden(&error) => {
            return Err(Some(SourceError::Forbidden(format!(
                "taskgate may not read Secret {namespace}/{name}: bind a Role in namespace {namespace} with \
                 {{apiGroups: [\"\"], resources: [secrets], resourceNames: [{name}], verbs: [get]}} to its service \
                 account, or give the Workspace a ghproxy"
            ))));
        }
        Err(error) => {
            tracing::debug!(%error, namespace, name, "a Secret could not be read");
            return Err(None);
        }
    };
    match data.get(TOKEN) {
        Some(token) => {
            let token = std::str::from_utf8(&token.0).ok().and_then(AuthToken::new);
            token.ok_or_else(|| Some(missing("has a token that cannot stand in a header")))
        }
        None if data.contains_key(APP) => Err(Some(SourceError::Unsupported(format!(
            "Secret {namespace}/{name} belongs to a GitHub App, for which taskgate makes no tokens: give the Workspace a \
             ghproxy"
        )))),
        None => Err(Some(missing("has no key GITHUB_TOKEN"))),
    }
}

/// The location of a spawner's items, or why there is none. `Err(None)`: the API server did not answer.
type Located = Result<Arc<SourceLocation>, Option<SourceError>>;

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
