//! A panic ends one reconcile, and nothing else: not the process, and not the controller of the leader.

use std::{hash::Hash, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt as _;
use kube::runtime::controller::Action;
use tokio::time::Instant;
use tracing::error;

use crate::{metrics::Metrics, refusals::Waits};

/// The longest wait until what panicked is tried again.
const LONGEST: Duration = Duration::from_mins(5);

/// The panics of one loop of reconciles, by what was reconciled.
#[derive(Debug)]
pub(crate) struct Unwinding<K> {
    /// The name of the loop in the log and in metrics.
    what: &'static str,
    metrics: Metrics,
    panicked: Waits<K>,
}

impl<K: Eq + Hash> Unwinding<K> {
    pub(crate) fn new(what: &'static str, metrics: &Metrics) -> Self {
        Self {
            what,
            metrics: metrics.clone(),
            panicked: Waits::new(LONGEST),
        }
    }

    /// What `reconcile`, a reconcile of `key`, comes to; after a panic, how long to wait before the next.
    ///
    /// What reconciles share is behind locks that are taken whatever happened under them, and holds nothing that a half-done
    /// reconcile leaves wrong: hence the assertion of unwind safety. The panic's message is not logged again: it may quote an
    /// object.
    pub(crate) async fn caught<T>(&self, key: K, reconcile: impl Future<Output = T>) -> Result<T, Duration> {
        if let Ok(outcome) = AssertUnwindSafe(reconcile).catch_unwind().await {
            return Ok(outcome);
        }
        let wait = self.panicked.next(key, Instant::now());
        self.metrics.panicked(self.what);
        error!(reconcile = self.what, ?wait, "a reconcile panicked: it is tried again");
        Err(wait)
    }

    /// The same for a reconcile of kube's: after a panic the object is requeued.
    pub(crate) async fn action<E>(
        &self,
        key: K,
        reconcile: impl Future<Output = Result<Action, E>>,
    ) -> Result<Action, E> {
        self.caught(key, reconcile)
            .await
            .unwrap_or_else(|wait| Ok(Action::requeue(wait)))
    }
}

/// Runs what `start` starts, which is meant to run for ever, and starts it again when it panics.
pub(crate) async fn restarted<F: Future<Output = ()>>(what: &'static str, metrics: &Metrics, start: impl Fn() -> F) {
    let unwinding = Unwinding::new(what, metrics);
    while let Err(wait) = unwinding.caught((), Box::pin(start())).await {
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "that is what is tested")]

    use std::sync::atomic::{AtomicU32, Ordering};

    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    fn counted() -> (Registry, Metrics) {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "taskgate");
        (registry, metrics)
    }

    fn panics(registry: &Registry, what: &str) -> bool {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text.contains(&format!("taskgate_reconcile_panics_total{{reconcile=\"{what}\"}}"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_counted_and_tried_again_ever_later() {
        let (registry, metrics) = counted();
        let unwinding = Unwinding::new("task", &metrics);
        assert_eq!(unwinding.caught("a", async { 1 }).await, Ok(1));
        assert!(!panics(&registry, "task"));
        for seconds in [3, 6, 12] {
            let caught = unwinding
                .caught("a", async { if seconds > 0 { panic!("odd object") } else { 1 } })
                .await;
            assert_eq!(caught, Err(Duration::from_secs(seconds)));
            tokio::time::advance(Duration::from_secs(seconds)).await;
        }
        assert!(panics(&registry, "task"));
        let other = unwinding.caught("b", async { panic!("another") }).await;
        assert_eq!(
            other,
            Err::<(), _>(Duration::from_secs(3)),
            "each has a wait of its own"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_for_ever_is_started_again() {
        let (registry, metrics) = counted();
        let starts = AtomicU32::new(0);
        restarted("lead", &metrics, || async {
            assert!(starts.fetch_add(1, Ordering::SeqCst) >= 3, "not yet");
        })
        .await;
        assert_eq!(starts.load(Ordering::SeqCst), 4);
        assert!(panics(&registry, "lead"));
    }
}
