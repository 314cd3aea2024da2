//! What a failed reconcile costs: an error or a panic ends that reconcile and nothing else, and it is tried again later.
//!
//! A request that admission, a quota or RBAC refused is refused again until a user changes something: its wait doubles, so that it
//! neither loads the API server nor fills the log.

use std::{
    collections::HashMap,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::time::Instant;
use tracing::error;

use crate::{
    error::{Error, is_refused},
    metrics::registered,
};

/// Until a failed reconcile is tried again; after a refusal or a panic it doubles.
const RETRY: Duration = Duration::from_secs(3);
/// The longest wait after a refusal.
const LONGEST_REFUSED: Duration = Duration::from_mins(3);
/// The longest wait until a reconcile that panicked is tried again.
const LONGEST_PANICKED: Duration = Duration::from_mins(5);

/// The wait of each key: it begins with [`RETRY`] and doubles.
#[derive(Debug)]
pub(super) struct ExponentialWaits<K> {
    longest: Duration,
    recent: Mutex<HashMap<K, (Duration, Instant)>>,
}

impl<K: Eq + Hash> ExponentialWaits<K> {
    /// Those after refusals.
    pub(super) fn after_refusals() -> Self {
        Self::up_to(LONGEST_REFUSED)
    }

    fn up_to(longest: Duration) -> Self {
        Self {
            longest,
            recent: Mutex::default(),
        }
    }

    /// How long to wait for `key` now. A key that needed no wait soon after its last one starts anew.
    fn next(&self, key: K, now: Instant) -> Duration {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, (wait, since)| now.duration_since(*since) <= *wait + self.longest);
        let wait = recent
            .get(&key)
            .map_or(RETRY, |(before, _)| (*before * 2).min(self.longest));
        recent.insert(key, (wait, now));
        wait
    }

    /// How long to wait after `error` of a reconcile of `key`.
    pub(super) fn after(&self, key: K, error: &Error) -> Duration {
        if is_refused(&error.source) {
            self.next(key, Instant::now())
        } else {
            RETRY
        }
    }
}

/// The counter of panics. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct PanicMetrics(Family<[(&'static str, &'static str); 1], Counter>);

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
            panicked: ExponentialWaits::up_to(LONGEST_PANICKED),
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
        let reconcile = self.reconcile;
        self.metrics.0.get_or_create(&[("reconcile", reconcile)]).inc();
        error!(reconcile, ?wait, "a reconcile panicked: it is tried again");
        Err(wait)
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

    fn error(code: u16) -> Error {
        let status = kube::core::Status::failure("no", "").with_code(code);
        Error::new("patching", "Task", "team", "t", kube::Error::Api(Box::new(status)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_doubles_the_wait_and_another_error_does_not() {
        let backoff = ExponentialWaits::after_refusals();
        for seconds in [3, 6, 12, 24, 48, 96, 180, 180] {
            let wait = backoff.after("refused", &error(403));
            assert_eq!(wait, Duration::from_secs(seconds));
            assert_eq!(backoff.after("failed", &error(500)), RETRY);
            tokio::time::advance(wait).await;
        }
        assert_eq!(backoff.after("another", &error(422)), RETRY);
        tokio::time::advance(LONGEST_REFUSED * 2 + RETRY).await;
        assert_eq!(backoff.after("refused", &error(403)), RETRY, "that was long ago");
        assert_eq!(backoff.recent.lock().unwrap().len(), 1, "expired waits are removed");
    }

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
