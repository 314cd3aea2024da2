//! What stands before every review: a cap on how many run at once, a deadline, and a net under panics.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::Uri;
use jiff::SignedDuration;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{sync::Semaphore, time::timeout};
use tracing::{debug, error, warn};

use crate::{config::Limits, metrics::Metrics, refusal::Refusal};

/// How much of the API server's patience a review may use, in percent: the rest is for the way there and back (C8).
const PATIENCE_PERCENT: u32 = 80;
/// The longest that the API server waits for any webhook.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs reviews within their limits, and counts those that got none.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    slots: Arc<Semaphore>,
    fallback: Duration,
    metrics: Metrics,
}

impl Guard {
    pub(crate) fn new(limits: &Limits, metrics: Metrics) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(limits.in_flight.get().min(Semaphore::MAX_PERMITS))),
            fallback: limits.review,
            metrics,
        }
    }

    /// Answers with what `review` comes to, or with a refusal: busy, too late, or failed.
    ///
    /// A panic ends only this request. What reviews share is immutable or behind locks that nothing panics under, so
    /// there is no half-changed state to see after one: hence the assertion of unwind safety.
    pub(crate) async fn run(
        &self,
        path: &'static str,
        uri: &Uri,
        review: impl Future<Output = Result<Response, Refusal>>,
    ) -> Response {
        let Ok(_slot) = self.slots.try_acquire() else {
            return self.refuse(path, Refusal::Busy);
        };
        let began = Instant::now();
        let _counted = Counted::new(self.metrics.in_flight().clone());
        let limit = deadline(uri, self.fallback);
        let outcome = match AssertUnwindSafe(timeout(limit, review)).catch_unwind().await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Refusal::Deadline),
            Err(_) => Err(Refusal::Panic),
        };
        self.metrics.took(path, began.elapsed());
        outcome.unwrap_or_else(|refusal| self.refuse(path, refusal))
    }

    fn refuse(&self, path: &'static str, refusal: Refusal) -> Response {
        match &refusal {
            Refusal::Panic => error!(path, "a review panicked"),
            Refusal::Facts(_) | Refusal::Deadline | Refusal::Starting => {
                warn!(path, cause = refusal.cause(), error = %refusal, "no verdict");
            }
            // Under overload, or for whoever sends nonsense, a line per request would be load of its own.
            refusal => debug!(path, cause = refusal.cause(), error = %refusal, "no verdict"),
        }
        self.metrics.refusal(&refusal);
        refusal.into_response()
    }
}

/// How long a review may take: a share of the `timeout` that the API server adds to the URL, such as `?timeout=2s`.
fn deadline(uri: &Uri, fallback: Duration) -> Duration {
    let patience = uri
        .query()
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("timeout="))
        .and_then(|text| text.parse::<SignedDuration>().ok())
        .and_then(|patience| Duration::try_from(patience).ok())
        .filter(|patience| !patience.is_zero())
        .unwrap_or(fallback);
    patience.min(LONGEST_TIMEOUT) * PATIENCE_PERCENT / 100
}

/// Holds a gauge one higher for as long as it lives.
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_four_fifths_of_what_the_api_server_waits() {
        let fallback = Duration::from_secs(5);
        for (uri, millis) in [
            ("/mutate/tasks?timeout=2s", 1_600),
            ("/mutate/tasks?dryRun=1&timeout=1m0s", 24_000),
            ("/mutate/tasks?timeout=30s", 24_000),
            ("/mutate/tasks?timeout=500ms", 400),
            ("/mutate/tasks", 4_000),
            ("/mutate/tasks?timeout=", 4_000),
            ("/mutate/tasks?timeout=0s", 4_000),
            ("/mutate/tasks?timeout=-3s", 4_000),
            ("/mutate/tasks?timeout=soon", 4_000),
            ("/mutate/tasks?timeout=99999999999999999999s", 4_000),
        ] {
            let limit = deadline(&uri.parse().unwrap(), fallback);
            assert_eq!(limit, Duration::from_millis(millis), "{uri}");
        }
    }
}
