//! When a failed reconcile is tried again. A request that admission, a quota or RBAC refused is refused again until a user changes
//! something: its wait doubles, so that it neither loads the API server nor fills the log.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::error::{Error, is_refused};

/// Until a failed reconcile is tried again; after a refusal it doubles.
const RETRY: Duration = Duration::from_secs(3);
/// The longest wait after a refusal.
const LONGEST: Duration = Duration::from_mins(3);

/// The wait of each key: it begins with [`RETRY`] and doubles.
#[derive(Debug)]
pub(super) struct ExponentialWaits<K> {
    longest: Duration,
    recent: Mutex<HashMap<K, (Duration, Instant)>>,
}

impl<K: Eq + Hash> ExponentialWaits<K> {
    /// No wait is longer than `longest`.
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            recent: Mutex::default(),
        }
    }

    /// How long to wait for `key` now. A key that needed no wait soon after its last one starts anew.
    pub(super) fn next(&self, key: K, now: Instant) -> Duration {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, (wait, since)| now.duration_since(*since) <= *wait + self.longest);
        let wait = recent
            .get(&key)
            .map_or(RETRY, |(before, _)| (*before * 2).min(self.longest));
        recent.insert(key, (wait, now));
        wait
    }
}

/// The waits after errors, by what was reconciled.
#[derive(Debug)]
pub(crate) struct ErrorBackoff<K>(ExponentialWaits<K>);

impl<K: Eq + Hash> Default for ErrorBackoff<K> {
    fn default() -> Self {
        Self(ExponentialWaits::new(LONGEST))
    }
}

impl<K: Eq + Hash> ErrorBackoff<K> {
    /// How long to wait after `error` of a reconcile of `key`.
    pub(crate) fn wait(&self, key: K, error: &Error) -> Duration {
        if is_refused(&error.source) {
            self.0.next(key, Instant::now())
        } else {
            RETRY
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16) -> Error {
        let status = kube::core::Status::failure("no", "").with_code(code);
        Error::new("patching", "Task", "team", "t", kube::Error::Api(Box::new(status)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_doubles_the_wait_and_another_error_does_not() {
        let backoff = ErrorBackoff::default();
        for seconds in [3, 6, 12, 24, 48, 96, 180, 180] {
            let wait = backoff.wait("refused", &error(403));
            assert_eq!(wait, Duration::from_secs(seconds));
            assert_eq!(backoff.wait("failed", &error(500)), RETRY);
            tokio::time::advance(wait).await;
        }
        assert_eq!(backoff.wait("another", &error(422)), RETRY);
        tokio::time::advance(LONGEST * 2 + RETRY).await;
        assert_eq!(backoff.wait("refused", &error(403)), RETRY, "that was long ago");
        assert_eq!(backoff.0.recent.lock().unwrap().len(), 1, "expired waits are removed");
    }
}
