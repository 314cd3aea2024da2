//! Runs reviews within limits: a number of concurrent reviews, a deadline, and panics caught per request.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::Uri;
use jiff::SignedDuration;
use tokio::time::timeout;
use tracing::{debug, error, warn};

use super::refusal::ReviewRefusal;
use crate::{
    config::ServerLimits,
    listener::{connection::Caller, peers::Quota},
    metrics::{GaugeGuard, ServerMetrics},
    registration::TimeoutSeconds,
};

/// The share of the API server's timeout that a review may use, in percent; the rest is for the network (C8).
const DEADLINE_PERCENT: u32 = 80;

/// Runs reviews within their limits, and counts the requests that it refuses.
#[derive(Clone, Debug)]
pub(super) struct ReviewLimiter {
    slots: Arc<Quota>,
    body: Duration,
    fallback: Duration,
    metrics: ServerMetrics,
}

impl ReviewLimiter {
    pub(super) fn new(limits: &ServerLimits, metrics: ServerMetrics) -> Self {
        Self {
            slots: Quota::new(limits.in_flight.get()),
            body: limits.body,
            fallback: limits.review,
            metrics,
        }
    }

    /// Reads the body by `read` and answers by `review`, or refuses: busy, too late, or failed. A request counts as running only
    /// once its body is read, so that a caller that sends no body delays no other.
    ///
    /// A panic ends only this request. Shared state is immutable or behind locks under which nothing panics, so that no
    /// half-changed state remains: hence the assertion of unwind safety.
    pub(super) async fn run<B, F>(
        &self,
        path: &'static str,
        uri: &Uri,
        caller: &Caller,
        read: impl Future<Output = Result<B, ReviewRefusal>>,
        review: impl FnOnce(B) -> F,
    ) -> Response
    where
        F: Future<Output = Result<Response, ReviewRefusal>>,
    {
        let started = Instant::now();
        let limit = deadline(uri, self.fallback);
        let answer = async {
            let body = timeout(self.body.min(limit), read)
                .await
                .map_err(|_| ReviewRefusal::SlowBody)??;
            caller.activity.reviewing();
            let _slot = self.slots.reserve(caller.peer, 1).ok_or(ReviewRefusal::Busy)?;
            let _counted = GaugeGuard::new(self.metrics.in_flight.clone());
            review(body).await
        };
        let outcome = match AssertUnwindSafe(timeout(limit, answer)).catch_unwind().await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ReviewRefusal::Deadline),
            Err(_) => Err(ReviewRefusal::Panic),
        };
        self.metrics.observe_duration(path, started.elapsed());
        outcome.unwrap_or_else(|refusal| self.refuse(path, refusal))
    }

    fn refuse(&self, path: &'static str, refusal: ReviewRefusal) -> Response {
        match &refusal {
            ReviewRefusal::Panic => error!(path, "a review panicked"),
            ReviewRefusal::ClusterRead(_) | ReviewRefusal::Deadline | ReviewRefusal::Starting => {
                warn!(path, cause = refusal.cause(), error = %refusal, "no decision");
            }
            // Under overload, or for callers that send invalid requests, a line per request would itself be load.
            refusal => debug!(path, cause = refusal.cause(), error = %refusal, "no decision"),
        }
        self.metrics.refused(refusal.cause());
        refusal.into_response()
    }
}

/// How long a review may take: a share of the `timeout` that the API server adds to the URL, such as `?timeout=2s`. Any caller
/// may write a URL, so it is capped at the longest timeout that a registration can have.
fn deadline(uri: &Uri, fallback: Duration) -> Duration {
    let timeout = uri
        .query()
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("timeout="))
        .and_then(|text| text.parse::<SignedDuration>().ok())
        .and_then(|timeout| Duration::try_from(timeout).ok())
        .filter(|timeout| !timeout.is_zero())
        .unwrap_or(fallback);
    let longest = Duration::from_secs(TimeoutSeconds::MAX.into());
    timeout.min(longest) * DEADLINE_PERCENT / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_four_fifths_of_the_api_servers_timeout() {
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
