//! The way to a spawner's tracker: its Workspace, and the proxy or the token that the Workspace names (kelos §4).
//!
//! Reading a token is a permission that a namespace gives by itself, for one Secret by name. A Workspace with a GitHub
//! proxy needs none.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::DynamicObject, runtime::reflector::ObjectRef};
use serde_json::Value;
use taskgate_policy::source::{IssueSource, Repository, ghproxy_service};

use super::{SourceConfig, client::Token, github::Route, trouble::Trouble};
use crate::{
    context::Context,
    error::is_forbidden,
    named,
    tasks::{json_of, kelos_resource},
};

/// The key of the token in a Workspace's Secret.
const TOKEN: &str = "GITHUB_TOKEN";
/// A key that only the Secret of a GitHub App has.
const APP: &str = "privateKey";

/// Where a spawner's items are read.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) source: IssueSource,
    pub(super) repository: Repository,
    pub(super) route: Route,
}

/// Finds the way. `Err(None)`: the API server did not answer, which says nothing of the source.
///
/// RBAC: `get` on workspaces; `get` on the one Secret, where the Workspace has no proxy.
pub(super) async fn place(
    context: &Context,
    config: &SourceConfig,
    namespace: &str,
    spawner: &str,
) -> Result<Place, Option<Trouble>> {
    let key = ObjectRef::new_with(spawner, context.spawner_kind.clone()).within(namespace);
    let found = context.policies.spawners.get(&key).ok_or(None)?;
    let source = IssueSource::of(&json_of(&found))
        .map_err(|why| Trouble::Unsupported(format!("TaskSpawner {namespace}/{spawner}: {}", why.0)))?;
    let own = source.repository.as_deref();
    let (repository, route) = by_workspace(context, config, namespace, &source.workspace, own).await?;
    Ok(Place {
        source,
        repository,
        route,
    })
}

/// The way that a Workspace gives, and the repository: `own` where that is named, else the Workspace's.
pub(super) async fn by_workspace(
    context: &Context,
    config: &SourceConfig,
    namespace: &str,
    name: &str,
    own: Option<&str>,
) -> Result<(Repository, Route), Option<Trouble>> {
    let workspace = workspace(context, namespace, name).await?;
    let text = |pointer: &str| workspace.pointer(pointer).and_then(Value::as_str);
    let repository = Repository::of(own, text("/spec/repo").unwrap_or_default())
        .ok_or_else(|| Trouble::Unsupported(format!("Workspace {namespace}/{name} names no repository of GitHub")))?;
    let is_proxy = workspace.pointer("/spec/ghproxy").is_some_and(Value::is_object);
    let route = if is_proxy {
        let service = ghproxy_service(name).ok_or_else(|| {
            Trouble::Unsupported(format!(
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

/// The way with a Secret of the namespace, or without any. Only to the API that taskgate itself is configured with: whoever
/// names a repository must not choose whom the token is shown to.
///
/// RBAC: `get` on the one Secret.
pub(super) async fn by_secret(
    context: &Context,
    config: &SourceConfig,
    namespace: &str,
    secret: Option<&str>,
    repository: &str,
) -> Result<(Repository, Route), Option<Trouble>> {
    let repository = Repository::parse(repository)
        .ok_or_else(|| Trouble::Unsupported("its repository is none of GitHub's".to_owned()))?;
    let elsewhere = repository.enterprise_api().filter(|api| *api != config.github_api);
    if let Some(api) = elsewhere {
        return Err(Some(Trouble::Unsupported(format!(
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

async fn workspace(context: &Context, namespace: &str, name: &str) -> Result<Value, Option<Trouble>> {
    let kind = kelos_resource(&context.spawner_kind.version, "Workspace", "workspaces");
    let workspaces = Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, &kind);
    match named::object(&workspaces, name).await {
        Ok(Some(workspace)) => Ok(json_of(&workspace)),
        Ok(None) => Err(Some(Trouble::Unsupported(format!(
            "Workspace {namespace}/{name} does not exist"
        )))),
        Err(error) if is_forbidden(&error) => Err(Some(Trouble::Forbidden(
            "taskgate may not get workspaces.kelos.dev".to_owned(),
        ))),
        Err(error) => {
            tracing::debug!(%error, namespace, name, "a Workspace could not be read");
            Err(None)
        }
    }
}

async fn token(context: &Context, namespace: &str, name: &str) -> Result<Token, Option<Trouble>> {
    let secrets = Api::<Secret>::namespaced(context.client.clone(), namespace);
    let missing = |what: &str| Trouble::SecretMissing(format!("Secret {namespace}/{name} {what}"));
    let data = match named::object(&secrets, name).await {
        Ok(Some(secret)) => secret.data.unwrap_or_default(),
        Ok(None) => return Err(Some(missing("does not exist"))),
        Err(error) if is_forbidden(&error) => {
            return Err(Some(Trouble::Forbidden(format!(
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
            let token = std::str::from_utf8(&token.0).ok().and_then(Token::new);
            token.ok_or_else(|| Some(missing("has a token that cannot stand in a header")))
        }
        None if data.contains_key(APP) => Err(Some(Trouble::Unsupported(format!(
            "Secret {namespace}/{name} belongs to a GitHub App, for which taskgate makes no tokens: give the Workspace a \
             ghproxy"
        )))),
        None => Err(Some(missing("has no key GITHUB_TOKEN"))),
    }
}
