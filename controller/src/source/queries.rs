//! Single queries: whether the issue or pull request of a failed run is still open.

use taskgate_policy::{
    retry::{Origin, SourceAccess},
    source::Repository,
};
use tokio::time::Instant;

use super::{
    SourceConfig,
    access::{of_secret, of_workspace},
    client::Http,
    error::SourceError,
    github::{self, Route},
    limits::{RouteKey, RouteLimits},
};
use crate::context::Context;

/// Queries issue sources, within the limits that they set.
pub(crate) struct SourceClient {
    /// `None`: there are no trusted roots.
    http: Option<Http>,
    config: SourceConfig,
    limits: RouteLimits,
}

impl SourceClient {
    pub(crate) fn new(config: SourceConfig) -> Self {
        Self {
            http: Http::new().ok(),
            config,
            limits: RouteLimits::default(),
        }
    }

    /// Whether any issue or pull request of `origin` is open; an error with the reason when that is unknown.
    pub(crate) async fn is_open(&self, context: &Context, namespace: &str, origin: &Origin) -> Result<bool, String> {
        self.query(context, namespace, origin).await.map_err(|error| {
            error.map_or_else(
                || "the API server does not answer how the source is reached".to_owned(),
                |error| error.to_string(),
            )
        })
    }

    async fn query(&self, context: &Context, namespace: &str, origin: &Origin) -> Result<bool, Option<SourceError>> {
        let Some(http) = &self.http else {
            return Err(Some(SourceError::Unsupported("there are no trusted roots".to_owned())));
        };
        let (key, repository, route) = self.route(context, namespace, origin).await?;
        let mut failed = None;
        for number in &origin.numbers {
            match self.query_one(http, &key, &route, &repository, *number).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        // Removes the limits of namespaces that are gone.
        self.limits
            .retain(|(namespace, _)| context.cache.namespace_labels(namespace).is_some());
        failed.map_or(Ok(false), |error| Err(Some(error)))
    }

    async fn route(
        &self,
        context: &Context,
        namespace: &str,
        origin: &Origin,
    ) -> Result<(RouteKey, Repository, Route), Option<SourceError>> {
        let config = &self.config;
        let own = origin.repository.as_deref();
        let (name, (repository, route)) = match &origin.access {
            SourceAccess::Workspace(name) => (name.clone(), of_workspace(context, config, namespace, name, own).await?),
            SourceAccess::Secret(secret) => {
                let secret = secret.as_deref();
                // No Workspace has a name with a slash.
                let name = format!("secret/{}", secret.unwrap_or_default());
                let repository = own.unwrap_or_default();
                (name, of_secret(context, config, namespace, secret, repository).await?)
            }
        };
        let key = (namespace.to_owned(), name);
        // Another token, or another address, resets the limit.
        self.limits.login(&key, &route);
        Ok((key, repository, route))
    }

    async fn query_one(
        &self,
        http: &Http,
        key: &RouteKey,
        route: &Route,
        repository: &Repository,
        number: u64,
    ) -> Result<bool, SourceError> {
        if let Some(until) = self.limits.paused(key) {
            let wait = until.saturating_duration_since(Instant::now()).as_secs();
            return Err(SourceError::Unreachable(format!(
                "{} is not asked for another {wait} s",
                route.base
            )));
        }
        let (is_open, pause) = github::is_open(http, route, repository, number).await;
        self.limits
            .record(key, is_open.as_ref().err(), pause, self.config.min_interval);
        is_open
    }
}
