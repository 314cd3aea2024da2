//! Single questions: whether what a failed run was for is still open.

use kube::runtime::reflector::ObjectRef;
use taskgate_policy::{
    retry::{Origin, SourceAccess},
    source::Repository,
};
use tokio::time::Instant;

use super::{
    SourceConfig,
    access::{by_secret, by_workspace},
    client::Http,
    github::{self, Route},
    limits::{Limits, RouteKey},
    trouble::Trouble,
};
use crate::context::Context;

/// Asks trackers, within the limits that they set.
pub(crate) struct Asker {
    /// `None`: there are no trusted roots.
    http: Option<Http>,
    config: SourceConfig,
    limits: Limits,
}

impl Asker {
    /// One that has not asked anybody yet.
    pub(crate) fn new(config: SourceConfig) -> Self {
        Self {
            http: Http::new().ok(),
            config,
            limits: Limits::default(),
        }
    }

    /// Whether any of what `origin` names is open. Errors with the reason when that cannot be said: one that is open is
    /// enough, but all have to be closed.
    pub(crate) async fn is_open(&self, context: &Context, namespace: &str, origin: &Origin) -> Result<bool, String> {
        self.ask(context, namespace, origin).await.map_err(|trouble| {
            trouble.map_or_else(
                || "the API server does not say how it is reached".to_owned(),
                |trouble| trouble.to_string(),
            )
        })
    }

    async fn ask(&self, context: &Context, namespace: &str, origin: &Origin) -> Result<bool, Option<Trouble>> {
        let Some(http) = &self.http else {
            return Err(Some(Trouble::Unsupported("there are no trusted roots".to_owned())));
        };
        let (key, repository, route) = self.way(context, namespace, origin).await?;
        let mut trouble = None;
        for number in &origin.numbers {
            match self.one(http, &key, &route, &repository, *number).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(found) => trouble = Some(found),
            }
        }
        // Accesses of namespaces that are gone.
        let namespaces = &context.policies.namespaces;
        self.limits
            .retain(|(namespace, _)| namespaces.get(&ObjectRef::new(namespace)).is_some());
        trouble.map_or(Ok(false), |trouble| Err(Some(trouble)))
    }

    async fn way(
        &self,
        context: &Context,
        namespace: &str,
        origin: &Origin,
    ) -> Result<(RouteKey, Repository, Route), Option<Trouble>> {
        let config = &self.config;
        let own = origin.repository.as_deref();
        let (name, (repository, route)) = match &origin.access {
            SourceAccess::Workspace(name) => (name.clone(), by_workspace(context, config, namespace, name, own).await?),
            SourceAccess::Secret(secret) => {
                let secret = secret.as_deref();
                // No Workspace is called like this.
                let name = format!("secret/{}", secret.unwrap_or_default());
                let repository = own.unwrap_or_default();
                (name, by_secret(context, config, namespace, secret, repository).await?)
            }
        };
        let key = (namespace.to_owned(), name);
        // Another token, or another address, starts afresh.
        self.limits.login(&key, &route);
        Ok((key, repository, route))
    }

    async fn one(
        &self,
        http: &Http,
        key: &RouteKey,
        route: &Route,
        repository: &Repository,
        number: u64,
    ) -> Result<bool, Trouble> {
        if let Some(until) = self.limits.paused(key) {
            let wait = until.saturating_duration_since(Instant::now()).as_secs();
            return Err(Trouble::Unreachable(format!(
                "{} is left alone for another {wait} s",
                route.base
            )));
        }
        let (is_open, pause) = github::is_open(http, route, repository, number).await;
        let trouble = is_open.as_ref().err();
        self.limits.note(key, trouble, pause, self.config.min_interval);
        is_open
    }
}
