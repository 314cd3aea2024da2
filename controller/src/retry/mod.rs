//! Retries failed Workloads, and failed Tasks that no spawner creates again (`retry`).
//!
//! ```text
//! Workloads, Tasks ─┐                                        ┌─ failed: record, give up, begin
//! WorkItems ────────┼─→ workqueue ── item ───────────────────┤
//! policies ─────────┘   one reconcile of an item at a time   └─ transition: dry run, delete, wait, create
//! ```
//!
//! What users ask of a `WorkItem` (`breaker::requests`) is carried out here too, whether anything is retried or not, so that one
//! reconcile writes an item at a time. Where the policy says so, the issue source is queried before a run is retried.
//!
//! The policy crate decides the next step ([`taskgate_policy::retry`]). A failed object itself is never written. Imports `breaker`
//! (creation of `WorkItem`s, requests), `source` and the shared modules. Called by `controller`.
//!
//! RBAC: `get, list, watch, create, delete` on workloads and `list` on agentictasks of foreman.llmkube.dev; `get, create, delete`
//! on tasks of kelos.dev; `list` on jobs and pods, cluster-wide; what the breaker needs for workitems and Events.

mod events;
mod failed;
mod item;
mod objects;
mod reads;
mod slots;
mod transition;

use std::{collections::HashSet, sync::Arc};

use futures::channel::mpsc::UnboundedReceiver;
use kube::ResourceExt as _;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use taskgate_api::{
    Mode, WorkItem,
    retry_status::RetryStage,
    task_policy::{RetriedKind, RetryPolicy},
};
use taskgate_policy::{
    Retrying, TaskState,
    retry::{Retried, RunPhase},
};
use tokio::sync::mpsc;

pub(crate) use events::RetryMetrics;
pub(crate) use objects::RetriedObjects;

use self::slots::Slots;
use crate::{
    breaker::BreakerReconciler,
    context::{Context, ItemRef},
    kubernetes::namespace_of,
    source::{OriginQueries, OriginQuery, SourceConfig},
    work_items::transition_of,
    workqueue,
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
    queries: OriginQueries,
    /// The predecessors whose deletion this process has recorded in the `WorkItem` and not sent yet.
    unsent: Mutex<HashSet<String>>,
    /// The version in which Foreman is served.
    foreman: RwLock<Option<&'static str>>,
    enqueue: mpsc::UnboundedSender<ItemRef>,
}

/// The receiving ends of the queues.
pub(crate) struct RetryQueues {
    items: mpsc::UnboundedReceiver<ItemRef>,
    queries: UnboundedReceiver<OriginQuery>,
}

/// The policy that governs an object.
struct RetryRule {
    /// Different for policies of equal name in two namespaces.
    policy: String,
    mode: Mode,
    rule: RetryPolicy,
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
        let (queries, enqueued) = OriginQueries::new(sources.clone(), context.cache.clock());
        let retry = Self {
            context,
            breaker,
            metrics,
            kinds,
            objects,
            slots: Slots::default(),
            queries,
            unsent: Mutex::default(),
            foreman: RwLock::default(),
            enqueue,
        };
        let queries = enqueued;
        (retry, RetryQueues { items, queries })
    }

    /// Watches Foreman, and reconciles every enqueued item. Never ends.
    pub(crate) async fn run(&self, queues: RetryQueues) {
        let reconciling = async {
            self.context.ready().await;
            let reconcile = |key| item::reconcile(self, key);
            workqueue::run("retry", &self.context.panics, queues.items, reconcile).await;
        };
        let querying = self
            .queries
            .run(&self.context, queues.queries, |item| self.enqueue(item));
        let watching = async {
            if self.kinds.contains(&RetriedKind::Workload) {
                objects::follow_foreman(self).await;
            }
        };
        tokio::join!(watching, reconciling, querying);
    }

    /// Enqueues the item of an object that was written or deleted, if that may concern a retry.
    pub(crate) fn object_changed(&self, kind: RetriedKind, object: &Value, deleted: bool) {
        let Some((phase, items)) = objects::store(self, kind, object, deleted) else {
            return;
        };
        for item in items {
            // An active run concerns only a retry that waits for it, and a failure that it ends.
            if deleted || phase != RunPhase::Active || item::is_cached_pending(self, &item) {
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
        let has_objects = self.objects.has(&key);
        if item::is_pending(item) || has_objects || self.slots.has(&key) || item::has_lost_successor(self, &key, item) {
            self.enqueue(&key);
        }
    }

    /// Evaluates all Workloads again, and enqueues all items: the policies changed. The caller reports each Task.
    pub(crate) fn policies_changed(&self) {
        objects::reconsider_workloads(self);
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
        let rule = self.rule_of(namespace_of(object), retried);
        let keeps = rule.is_some_and(|found| found.mode == Mode::Enforce && !state.cancelled);
        if keeps { Retrying::Keeps } else { Retrying::No }
    }

    /// The policy that governs `retried`, if one does.
    fn rule_of(&self, namespace: &str, retried: Retried<'_>) -> Option<RetryRule> {
        self.context.in_scope(namespace, None, |policies| {
            let found = policies.retry(retried.kind(), retried.object())?;
            let policy = match found.policy.namespace() {
                Some(_) => format!("{namespace}/{}", found.policy),
                None => found.policy.to_string(),
            };
            Some(RetryRule {
                policy,
                mode: found.mode,
                rule: found.rule.clone(),
            })
        })
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
        *self.foreman.read()
    }

    /// The deletion of this predecessor is recorded and not sent yet.
    fn mark_unsent(&self, uid: &str) {
        self.unsent.lock().insert(uid.to_owned());
    }

    /// Whether this process recorded the deletion and did not send it; from now on it counts as sent.
    fn mark_sent(&self, uid: &str) -> bool {
        self.unsent.lock().remove(uid)
    }

    fn is_unsent(&self, uid: &str) -> bool {
        self.unsent.lock().contains(uid)
    }
}
