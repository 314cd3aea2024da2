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
use tokio::time::timeout;
use tracing::{debug, error, warn};

use crate::{TimeoutSeconds, config::Limits, connection::Caller, metrics::Metrics, peers::Quota, refusal::Refusal};

/// How much of the API server's patience a review may use, in percent: the rest is for the way there and back (C8).
const PATIENCE_PERCENT: u32 = 80;

/// Runs reviews within their limits, and counts those that got none.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    slots: Arc<Quota>,
    body: Duration,
    fallback: Duration,
    metrics: Metrics,
}

impl Guard {
    pub(crate) fn new(limits: &Limits, metrics: Metrics) -> Self {
        Self {
            slots: Quota::new(limits.in_flight.get()),
            body: limits.body,
            fallback: limits.review,
            metrics,
        }
    }

    /// Answers with what `review` makes of what `read` reads, or with a refusal: busy, too late, or failed. A caller that
    /// does not send its body delays no other: a request counts as running once its body is there.
    ///
    /// A panic ends only this request. What reviews share is immutable or behind locks that nothing panics under, so
    /// there is no half-changed state to see after one: hence the assertion of unwind safety.
    pub(crate) async fn run<B, F>(
        &self,
        path: &'static str,
        uri: &Uri,
        caller: &Caller,
        read: impl Future<Output = Result<B, Refusal>>,
        review: impl FnOnce(B) -> F,
    ) -> Response
    where
        F: Future<Output = Result<Response, Refusal>>,
    {
        let began = Instant::now();
        let limit = deadline(uri, self.fallback);
        let answer = async {
            let body = timeout(self.body.min(limit), read)
                .await
                .map_err(|_| Refusal::SlowBody)??;
            caller.activity.reviewing();
            let _slot = self.slots.take(caller.peer, 1).ok_or(Refusal::Busy)?;
            let _counted = Counted::new(self.metrics.in_flight().clone());
            review(body).await
        };
        let outcome = match AssertUnwindSafe(timeout(limit, answer)).catch_unwind().await {
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

/// How long a review may take: a share of the `timeout` that the API server adds to the URL, such as `?timeout=2s`. Anybody
/// may write a URL, so it counts up to the longest that a registration states.
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
    let longest = Duration::from_secs(TimeoutSeconds::MAX.into());
    patience.min(longest) * PATIENCE_PERCENT / 100
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
        let fallback = Duration::from_secs(3);
        for (uri, millis) in [
            ("/mutate/tasks?timeout=2s", 1_600),
            ("/mutate/tasks?dryRun=1&timeout=1m0s", 4_000),
            ("/mutate/tasks?timeout=30s", 4_000),
            ("/mutate/tasks?timeout=500ms", 400),
            ("/mutate/tasks", 2_400),
            ("/mutate/tasks?timeout=", 2_400),
            ("/mutate/tasks?timeout=0s", 2_400),
            ("/mutate/tasks?timeout=-3s", 2_400),
            ("/mutate/tasks?timeout=soon", 2_400),
            ("/mutate/tasks?timeout=99999999999999999999s", 2_400),
        ] {
            let limit = deadline(&uri.parse().unwrap(), fallback);
            assert_eq!(limit, Duration::from_millis(millis), "{uri}");
        }
    }
}
