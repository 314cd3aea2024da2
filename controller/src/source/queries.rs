//! Single queries: whether the issues or pull requests of a failed run are still open. They run beside the reconciles, so that no
//! source that does not answer delays them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, channel::mpsc};
use parking_lot::Mutex;
use taskgate_cache::Clock;
use taskgate_policy::{
    retry::{Origin, SourceAccess},
    source::Repository,
};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    CONCURRENCY, PER_NAMESPACE, SourceConfig,
    access::{of_secret, of_workspace},
    client::Http,
    error::SourceError,
    github::{Route, Session},
    limits::{RouteKey, RouteLimits},
};
use crate::context::{Context, ItemRef};

/// For how long an answer is used: until the run is retried, and no longer.
const FRESH: Duration = Duration::from_mins(1);

/// Whether any issue or pull request of a run is open; an error with the reason when that is unknown.
pub(crate) type IsOpen = Result<bool, String>;

/// A query about one run of an item.
#[derive(Debug)]
pub(crate) struct OriginQuery {
    item: ItemRef,
    /// The run's object.
    uid: String,
    origin: Origin,
}

/// The queries about failed runs, within the limits that the sources set, and their answers.
pub(crate) struct OriginQueries {
    /// `None`: there are no trusted roots.
    http: Option<Http>,
    config: SourceConfig,
    limits: RouteLimits,
    /// By the run's UID; `None` until there is an answer.
    answers: Mutex<HashMap<String, Option<(IsOpen, Instant)>>>,
    enqueue: mpsc::UnboundedSender<OriginQuery>,
}

impl OriginQueries {
    /// The queries, and those that are not sent yet, for [`Self::run`].
    pub(crate) fn new(config: SourceConfig, clock: &Clock) -> (Self, mpsc::UnboundedReceiver<OriginQuery>) {
        let (enqueue, enqueued) = mpsc::unbounded();
        let queries = Self {
            http: Http::new(clock).ok(),
            config,
            limits: RouteLimits::default(),
            answers: Mutex::default(),
            enqueue,
        };
        (queries, enqueued)
    }

    /// The answer about the run of `uid`. `None`: the query is under way, and `run` reports `item` when it is answered.
    pub(crate) fn answer(&self, item: &ItemRef, uid: &str, origin: &Origin) -> Option<IsOpen> {
        let mut answers = self.answers.lock();
        answers.retain(|_, answer| answer.as_ref().is_none_or(|(_, at)| at.elapsed() < FRESH));
        if let Some(answer) = answers.get(uid) {
            return answer.as_ref().map(|(answer, _)| answer.clone());
        }
        answers.insert(uid.to_owned(), None);
        // Fails only when the controller is dropped.
        let _ = self.enqueue.unbounded_send(OriginQuery {
            item: item.clone(),
            uid: uid.to_owned(),
            origin: origin.clone(),
        });
        None
    }

    /// Sends the queries, and calls `answered` with the item of each. Never ends.
    pub(crate) async fn run(
        &self,
        context: &Context,
        enqueued: mpsc::UnboundedReceiver<OriginQuery>,
        answered: impl Fn(&ItemRef),
    ) {
        let (all, answered) = (&Semaphore::new(CONCURRENCY), &answered);
        let mut namespaces: HashMap<String, Arc<Semaphore>> = HashMap::new();
        let queries = enqueued.map(|query| {
            namespaces.retain(|_, permits| Arc::strong_count(permits) > 1);
            let own = namespaces.entry(query.item.0.clone());
            let own = own.or_insert_with(|| Arc::new(Semaphore::new(PER_NAMESPACE)));
            (query, Arc::clone(own))
        });
        let sending = queries.for_each_concurrent(None, |(query, own)| async move {
            // Neither semaphore is ever closed.
            let _permits = (own.acquire().await, all.acquire().await);
            let is_open = self.is_any_open(context, &query.item.0, &query.origin).await;
            let answer = is_open.map_err(|error| error.to_string());
            self.answers.lock().insert(query.uid, Some((answer, Instant::now())));
            answered(&query.item);
        });
        sending.await;
    }

    async fn is_any_open(&self, context: &Context, namespace: &str, origin: &Origin) -> Result<bool, SourceError> {
        let Some(http) = &self.http else {
            return Err(SourceError::Unsupported("there are no trusted roots".to_owned()));
        };
        let (key, repository, route) = self.route(context, namespace, origin).await?;
        let mut failed = None;
        for number in &origin.numbers {
            match self.is_open(http, &key, &route, &repository, *number).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        // Removes the limits of namespaces that are gone.
        self.limits
            .retain(|(namespace, _)| context.cache.namespace_labels(namespace).is_some());
        failed.map_or(Ok(false), Err)
    }

    async fn route(
        &self,
        context: &Context,
        namespace: &str,
        origin: &Origin,
    ) -> Result<(RouteKey, Repository, Route), SourceError> {
        let (config, own) = (&self.config, origin.repository.as_deref());
        let (name, (repository, route)) = match &origin.access {
            SourceAccess::Workspace(name) => (name.clone(), of_workspace(context, config, namespace, name, own).await?),
            SourceAccess::Secret(secret) => {
                let (secret, repository) = (secret.as_deref(), own.unwrap_or_default());
                // No Workspace has a name with a slash.
                let name = format!("secret/{}", secret.unwrap_or_default());
                (name, of_secret(context, config, namespace, secret, repository).await?)
            }
        };
        let key = (namespace.to_owned(), name);
        // Another token, or another address, resets the limit.
        self.limits.login(&key, &route);
        Ok((key, repository, route))
    }

    async fn is_open(
        &self,
        http: &Http,
        key: &RouteKey,
        route: &Route,
        repository: &Repository,
        number: u64,
    ) -> Result<bool, SourceError> {
        if let Some(until) = self.limits.paused(key) {
            let wait = until.saturating_duration_since(Instant::now()).as_secs();
            let message = format!("{} is not asked for another {wait} s", route.base);
            return Err(SourceError::Unreachable(message));
        }
        let mut session = Session::new(http, route);
        let is_open = session.is_open(repository, number).await;
        let interval = self.config.min_interval;
        self.limits
            .record(key, is_open.as_ref().err(), session.pause, interval, http.now());
        is_open
    }
}
