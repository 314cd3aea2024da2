//! The circuit breaker (`failurePolicy`): how a failed Task is counted, kept, deleted or stopped.
//!
//! - `attempt_history`: records the end of a Task in its `WorkItem`, once, with its cause, and resets the item.
//! - `work_item_limit`: creates `WorkItem`s, as many as a namespace may have.
//! - `stop`: fails a Task that was created although its item's breaker is open.
//! - `requests`: carries out what users ask of a `WorkItem` by annotation.
//! - `reassess`: updates `WorkItem`s without Tasks when a policy changes. `spawner_status`: the status of the
//!   TaskSpawner, with the entries of `failed_items`.
//!
//! The policy crate decides the next step of a Task ([`taskgate_policy::next_action`]); `controller::task` calls the functions here.
//! Imports `cancellation` (the runner of a worker pool) and the shared modules. Called by `controller` and `retry`.

pub(crate) mod attempt_history;
mod events;
mod failed_items;
mod metrics;
pub(crate) mod reassess;
pub(crate) mod requests;
pub(crate) mod spawner_status;
pub(crate) mod stop;
mod work_item_limit;

use std::sync::Arc;

use taskgate_cache::{CachedWorkItem, ObjectChange};

use crate::context::{Context, ItemRef};

pub(crate) use metrics::BreakerMetrics;

use metrics::ItemCounts;

/// The state of the circuit breaker beside the `WorkItem`s.
pub(crate) struct BreakerReconciler {
    context: Arc<Context>,
    metrics: BreakerMetrics,
    counts: ItemCounts,
    /// How many `WorkItem`s a namespace may have.
    work_items_per_namespace: usize,
    /// Whether an item has objects that are retried: its `WorkItem` is then in use.
    is_retried: Box<dyn Fn(&ItemRef) -> bool + Send + Sync>,
}

impl BreakerReconciler {
    pub(crate) fn new(
        context: Arc<Context>,
        metrics: BreakerMetrics,
        work_items_per_namespace: usize,
        is_retried: impl Fn(&ItemRef) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            context,
            counts: metrics.count_items(),
            metrics,
            work_items_per_namespace,
            is_retried: Box::new(is_retried),
        }
    }

    /// Counts a change of the watch of `WorkItem`s.
    pub(crate) fn work_item_changed(&self, change: &ObjectChange<CachedWorkItem>) {
        self.counts.changed(change);
    }
}
