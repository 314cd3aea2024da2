//! Whether the source of a failed run is still open. The queries run beside the reconciles, so that no source that does not answer
//! delays them.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use taskgate_policy::retry::{Origin, SourceState};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};

use super::RetryReconciler;
use crate::{source::SourceClient, task_index::ItemRef};

/// For how long an answer is used: until a slot is free, and no longer.
const FRESH: Duration = Duration::from_mins(1);
/// How many queries run in parallel.
const CONCURRENCY: usize = 32;
/// How many of them may be of one namespace, so that one tenant's source, which does not answer, does not delay the others.
const PER_NAMESPACE: usize = 4;

/// A query about one run.
#[derive(Debug)]
pub(super) struct SourceQuery {
    item: ItemRef,
    /// The run's object.
    uid: String,
    origin: Origin,
}

/// The state of a run's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceAnswer {
    pub(super) state: SourceState,
    /// Why the state is unknown.
    pub(super) error: Option<String>,
}

/// The queries to issue sources, and their answers.
#[derive(Debug)]
pub(super) struct SourceQueries {
    /// By the run's UID; `None` until there is an answer.
    known: Mutex<HashMap<String, Option<(SourceAnswer, Instant)>>>,
    enqueue: mpsc::UnboundedSender<SourceQuery>,
}

/// The queries that are not sent yet.
pub(super) type EnqueuedQueries = mpsc::UnboundedReceiver<SourceQuery>;

impl SourceQueries {
    pub(super) fn new() -> (Self, EnqueuedQueries) {
        let (enqueue, enqueued) = mpsc::unbounded_channel();
        let known = Mutex::default();
        (Self { known, enqueue }, enqueued)
    }

    /// The state of the source of the run of `uid`. `None`: a query is under way, and `item` is enqueued when it is answered.
    pub(super) fn answer(&self, item: &ItemRef, uid: &str, origin: &Origin) -> Option<SourceAnswer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, answer| answer.as_ref().is_none_or(|(_, at)| at.elapsed() < FRESH));
        if let Some(answer) = known.get(uid) {
            return answer.as_ref().map(|(answer, _)| answer.clone());
        }
        known.insert(uid.to_owned(), None);
        // Fails only when the controller is dropped.
        let _ = self.enqueue.send(SourceQuery {
            item: item.clone(),
            uid: uid.to_owned(),
            origin: origin.clone(),
        });
        None
    }

    fn put(&self, uid: String, answer: SourceAnswer) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(uid, Some((answer, Instant::now())));
    }
}

/// Sends the queries. Never ends.
pub(super) async fn run(retry: &RetryReconciler, client: &SourceClient, mut enqueued: EnqueuedQueries) {
    let all = Semaphore::new(CONCURRENCY);
    let mut namespaces: HashMap<String, Arc<Semaphore>> = HashMap::new();
    let mut answers = FuturesUnordered::new();
    loop {
        let next = async {
            match answers.next().await {
                Some(answered) => answered,
                None => pending().await,
            }
        };
        tokio::select! {
            query = enqueued.recv() => {
                let Some(query) = query else { return };
                namespaces.retain(|_, permits| Arc::strong_count(permits) > 1);
                let own = namespaces.entry(query.item.0.clone());
                let own = Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(PER_NAMESPACE))));
                let all = &all;
                answers.push(async move {
                    // Neither semaphore is ever closed.
                    let _permits = (own.acquire().await, all.acquire().await);
                    let answer = send(retry, client, &query).await;
                    (query, answer)
                });
            }
            (query, answer) = next => {
                let SourceQuery { item, uid, .. } = query;
                retry.queries.put(uid, answer);
                retry.enqueue(&item);
            }
        }
    }
}

async fn send(retry: &RetryReconciler, client: &SourceClient, query: &SourceQuery) -> SourceAnswer {
    let is_open = client.is_open(&retry.context, &query.item.0, &query.origin).await;
    let (state, error) = match is_open {
        Ok(true) => (SourceState::Open, None),
        Ok(false) => (SourceState::Closed, None),
        Err(error) => (SourceState::Unknown, Some(error)),
    };
    SourceAnswer { state, error }
}
