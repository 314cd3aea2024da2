//! Retries failed Workloads, and failed Tasks that no spawner creates again (`retry`).
//!
//! ```text
//! Workloads, Tasks ─┐                                        ┌─ failed: record, give up, begin
//! WorkItems ────────┼─→ workqueue::rate_limited ── item ─────┤
//! policies ─────────┘   one reconcile of an item at a time   └─ transition: dry run, delete, wait, create
//! ```
//!
//! What users ask of a `WorkItem` (`breaker::requests`) is carried out here too, whether anything is retried or not, so that one
//! reconcile writes an item at a time. Where the policy says so, the issue source is queried before a run is retried
//! (`source_queries`).
//!
//! The policy crate decides the next step ([`taskgate_policy::retry`]). A failed object itself is never written. Imports `breaker`
//! (creation of `WorkItem`s, requests), `source` and the shared modules. Called by `controller`.
//!
//! RBAC: `get, list, watch, create, delete` on workloads and `list` on agentictasks of foreman.llmkube.dev; `get, create, delete`
//! on tasks of kelos.dev; `list` on jobs and pods, cluster-wide; what the breaker needs for workitems and Events.

mod events;
mod failed;
mod foreman;
mod item;
mod metrics;
mod objects;
mod reads;
mod slots;
mod source_queries;
mod successor;
mod transition;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use kube::ResourceExt as _;
use serde_json::Value;
use taskgate_api::{Mode, WorkItem, retry_status::RetryStage, task_policy::RetriedKind};
use taskgate_policy::{
    PolicyScope, Retrying, TaskState,
    retry::{Retried, RunPhase},
};
use tokio::sync::mpsc;

pub(crate) use metrics::RetryMetrics;
pub(crate) use objects::RetriedObjects;

use self::{
    foreman::Workloads,
    slots::Slots,
    source_queries::{EnqueuedQueries, SourceQueries},
};
use crate::{
    breaker::BreakerReconciler,
    context::Context,
    kubernetes::namespace_of,
    source::{SourceClient, SourceConfig},
    task_index::ItemRef,
    work_items::transition_of,
    workqueue::{ErrorBackoff, PanicGuard, rate_limited},
};

/// The state of retries beside the `WorkItem`s.
pub(crate) struct RetryReconciler {
    context: Arc<Context>,
    breaker: Arc<BreakerReconciler>,
    metrics: RetryMetrics,
    /// The kinds that are retried.
    kinds: Vec<RetriedKind>,
    objects: Arc<RetriedObjects>,
    slots: Slots,
    workloads: Workloads,
    queries: SourceQueries,
    /// The predecessors whose deletion this process has recorded in the `WorkItem` and not sent yet.
    unsent: Mutex<HashSet<String>>,
    /// The version in which Foreman is served.
    foreman: RwLock<Option<&'static str>>,
    backoff: ErrorBackoff<ItemRef>,
    panics: PanicGuard<ItemRef>,
    enqueue: mpsc::UnboundedSender<ItemRef>,
}

/// The receiving ends of the queues, and the client of issue sources.
pub(crate) struct RetryQueues {
    items: mpsc::UnboundedReceiver<ItemRef>,
    queries: EnqueuedQueries,
    client: SourceClient,
}

impl RetryReconciler {
    /// `objects` is shared with the breaker, which must not delete the `WorkItem`s of retried objects.
    pub(crate) fn new(
        context: Arc<Context>,
        breaker: Arc<BreakerReconciler>,
        objects: Arc<RetriedObjects>,
        kinds: Vec<RetriedKind>,
        sources: &SourceConfig,
        metrics: RetryMetrics,
    ) -> (Self, RetryQueues) {
        let (enqueue, items) = mpsc::unbounded_channel();
        let (queries, enqueued) = SourceQueries::new();
        let panics = PanicGuard::new("retry", &context.panics);
        let retry = Self {
            context,
            breaker,
            metrics,
            kinds,
            objects,
            slots: Slots::default(),
            workloads: Workloads::default(),
            queries,
            unsent: Mutex::default(),
            foreman: RwLock::default(),
            backoff: ErrorBackoff::default(),
            panics,
            enqueue,
        };
        let queues = RetryQueues {
            items,
            queries: enqueued,
            client: SourceClient::new(sources.clone()),
        };
        (retry, queues)
    }

    /// Watches Foreman, and reconciles every enqueued item. Never ends.
    pub(crate) async fn run(&self, queues: RetryQueues) {
        let reconciling = async {
            self.context.ready().await;
            rate_limited::run(queues.items, |key| item::reconcile(self, key)).await;
        };
        let querying = source_queries::run(self, &queues.client, queues.queries);
        let watching = async {
            if self.kinds.contains(&RetriedKind::Workload) {
                foreman::follow(self).await;
            }
        };
        tokio::join!(watching, reconciling, querying);
    }

    /// Enqueues the item of an object that was written or deleted, if that may concern a retry.
    pub(crate) fn object_changed(&self, kind: RetriedKind, object: &Value, deleted: bool) {
        let Some((namespace, key, entry)) = objects::entry_of(self, kind, object) else {
            return;
        };
        let active = entry.phase == RunPhase::Active;
        let entry = Some(entry).filter(|_| !deleted);
        for item in self.objects.set(&namespace, &key, entry) {
            // An active run concerns only a retry that waits for it.
            if deleted || !active || item::is_under_way(self, &item) {
                self.enqueue(&item);
            }
        }
    }

    /// Enqueues a `WorkItem` that was written or deleted, if that may concern a retry.
    pub(crate) fn work_item_changed(&self, item: &WorkItem, deleted: bool) {
        let key = (item.namespace().unwrap_or_default(), item.name_any());
        if deleted {
            self.slots.set(&key, None);
        } else {
            self.slots.keep(&key, item);
        }
        if item::is_pending(item) || self.objects.has(&key) || self.slots.has(&key) {
            self.enqueue(&key);
        }
    }

    /// Evaluates all Workloads again, and enqueues all items: the policies changed. The caller reports each Task.
    pub(crate) fn policies_changed(&self) {
        foreman::reconsider_all(self);
        self.enqueue_all();
    }

    /// What retries do with a Task, which the breaker's next step depends on.
    pub(crate) fn state_of(&self, object: &Value, state: &TaskState, item: Option<&WorkItem>) -> Retrying {
        let transition = item.and_then(transition_of);
        let deletes = transition
            .is_some_and(|transition| transition.old.uid == state.uid && transition.step != RetryStage::Planned);
        if deletes {
            return Retrying::Deletes;
        }
        let retried = Retried::of(RetriedKind::Task, object);
        let Some(retried) = retried.filter(|_| self.kinds.contains(&RetriedKind::Task)) else {
            return Retrying::No;
        };
        let namespace = namespace_of(object);
        let policies = self.context.policies();
        let labels = self.context.namespace_labels(namespace);
        let rule = PolicyScope::new(&policies, namespace, &labels, None).retry(retried.kind(), retried.object());
        let keeps = rule.is_some_and(|found| found.mode == Mode::Enforce && !state.cancelled);
        if keeps { Retrying::Keeps } else { Retrying::No }
    }

    fn enqueue(&self, item: &ItemRef) {
        // Fails only when the controller is dropped.
        let _ = self.enqueue.send(item.clone());
    }

    /// Enqueues every item whose `WorkItem` may concern a retry.
    fn enqueue_all(&self) {
        for item in self.context.cache.work_items().all() {
            self.work_item_changed(&item.expand(), false);
        }
    }

    fn foreman(&self) -> Option<&'static str> {
        *self.foreman.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The deletion of this predecessor is recorded and not sent yet.
    fn mark_unsent(&self, uid: &str) {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        unsent.insert(uid.to_owned());
    }

    /// Whether this process recorded the deletion and did not send it; from now on it counts as sent.
    fn mark_sent(&self, uid: &str) -> bool {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).remove(uid)
    }

    fn is_unsent(&self, uid: &str) -> bool {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).contains(uid)
    }
}
