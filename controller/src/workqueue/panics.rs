//! A panic ends one reconcile, and nothing else: neither the process nor the leader's controller.

use std::{hash::Hash, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt as _;
use kube::runtime::controller::Action;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::time::Instant;
use tracing::error;

use super::backoff::ExponentialWaits;
use crate::metrics::registered;

/// The longest wait until a reconcile that panicked is tried again.
const LONGEST: Duration = Duration::from_mins(5);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    reconcile: &'static str,
}

/// The counter of panics. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct PanicMetrics(Family<ReconcileLabels, Counter>);

impl PanicMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        Self(registered(
            registry,
            "reconcile_panics",
            "Reconciles that panicked, and are tried again: a bug, please report it",
        ))
    }
}

/// The panics of one reconcile loop, by what was reconciled.
#[derive(Debug)]
pub(crate) struct PanicGuard<K> {
    /// The name of the loop in the log and in metrics.
    reconcile: &'static str,
    metrics: PanicMetrics,
    panicked: ExponentialWaits<K>,
}

impl<K: Eq + Hash> PanicGuard<K> {
    pub(crate) fn new(reconcile: &'static str, metrics: &PanicMetrics) -> Self {
        Self {
            reconcile,
            metrics: metrics.clone(),
            panicked: ExponentialWaits::new(LONGEST),
        }
    }

    /// Runs `reconcile`, a reconcile of `key`; after a panic, how long to wait before the next.
    ///
    /// The assertion of unwind safety holds: locks are taken whether poisoned or not, and what they guard is consistent after
    /// half a reconcile. The panic's message is not logged again: it may quote an object.
    pub(crate) async fn catch<T>(&self, key: K, reconcile: impl Future<Output = T>) -> Result<T, Duration> {
        if let Ok(outcome) = AssertUnwindSafe(reconcile).catch_unwind().await {
            return Ok(outcome);
        }
        let wait = self.panicked.next(key, Instant::now());
        let labels = ReconcileLabels {
            reconcile: self.reconcile,
        };
        self.metrics.0.get_or_create(&labels).inc();
        error!(
            reconcile = self.reconcile,
            ?wait,
            "a reconcile panicked: it is tried again"
        );
        Err(wait)
    }

    /// Runs a reconcile of kube's; after a panic the object is requeued.
    pub(crate) async fn catch_action<E>(
        &self,
        key: K,
        reconcile: impl Future<Output = Result<Action, E>>,
    ) -> Result<Action, E> {
        self.catch(key, reconcile)
            .await
            .unwrap_or_else(|wait| Ok(Action::requeue(wait)))
    }
}

/// Runs the future of `start`, which never ends by itself, and starts it again when it panics.
pub(crate) async fn restart_on_panic<F: Future<Output = ()>>(
    name: &'static str,
    metrics: &PanicMetrics,
    start: impl Fn() -> F,
) {
    let guard = PanicGuard::new(name, metrics);
    while let Err(wait) = guard.catch((), Box::pin(start())).await {
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "that is what is tested")]

    use std::sync::atomic::{AtomicU32, Ordering};

    use prometheus_client::encoding::text::encode;

    use super::*;

    fn counted() -> (Registry, PanicMetrics) {
        let mut registry = Registry::default();
        let metrics = PanicMetrics::register(registry.sub_registry_with_prefix("taskgate"));
        (registry, metrics)
    }

    fn panics(registry: &Registry, reconcile: &str) -> bool {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text.contains(&format!("taskgate_reconcile_panics_total{{reconcile=\"{reconcile}\"}}"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_counted_and_doubles_the_wait() {
        let (registry, metrics) = counted();
        let guard = PanicGuard::new("task", &metrics);
        assert_eq!(guard.catch("a", async { 1 }).await, Ok(1));
        assert!(!panics(&registry, "task"));
        for seconds in [3, 6, 12] {
            let caught = guard
                .catch("a", async { if seconds > 0 { panic!("odd object") } else { 1 } })
                .await;
            assert_eq!(caught, Err(Duration::from_secs(seconds)));
            tokio::time::advance(Duration::from_secs(seconds)).await;
        }
        assert!(panics(&registry, "task"));
        let other = guard.catch("b", async { panic!("another") }).await;
        assert_eq!(
            other,
            Err::<(), _>(Duration::from_secs(3)),
            "each has a wait of its own"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_that_never_ends_is_restarted_after_a_panic() {
        let (registry, metrics) = counted();
        let starts = AtomicU32::new(0);
        restart_on_panic("lead", &metrics, || async {
            assert!(starts.fetch_add(1, Ordering::SeqCst) >= 3, "not yet");
        })
        .await;
        assert_eq!(starts.load(Ordering::SeqCst), 4);
        assert!(panics(&registry, "lead"));
    }
}
