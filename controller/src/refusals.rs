//! When a step that failed is tried again. What was refused, by admission, a quota or RBAC, is refused again until somebody
//! changes something: it is tried ever less often, so that it neither loads the API server nor fills the log.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::error::{Error, is_refused};

/// Until a failed step is tried again; after a refusal it doubles.
const RETRY: Duration = Duration::from_secs(3);
/// The longest wait after a refusal.
const LONGEST: Duration = Duration::from_mins(3);

/// For each key how long was waited lately: a wait that begins with [`RETRY`] and doubles.
#[derive(Debug)]
pub(crate) struct Waits<K> {
    longest: Duration,
    lately: Mutex<HashMap<K, (Duration, Instant)>>,
}

impl<K: Eq + Hash> Waits<K> {
    /// None was waited for yet; no wait is longer than `longest`.
    pub(crate) fn new(longest: Duration) -> Self {
        Self {
            longest,
            lately: Mutex::default(),
        }
    }

    /// How long to wait for `key` now. What needed no wait soon after the last one starts anew.
    pub(crate) fn next(&self, key: K, now: Instant) -> Duration {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.retain(|_, (wait, since)| now.duration_since(*since) <= *wait + self.longest);
        let wait = lately
            .get(&key)
            .map_or(RETRY, |(before, _)| (*before * 2).min(self.longest));
        lately.insert(key, (wait, now));
        wait
    }
}

/// What was refused lately.
#[derive(Debug)]
pub(crate) struct Refusals<K>(Waits<K>);

impl<K: Eq + Hash> Default for Refusals<K> {
    fn default() -> Self {
        Self(Waits::new(LONGEST))
    }
}

impl<K: Eq + Hash> Refusals<K> {
    /// How long to wait after `error`, which a step for `key` came to.
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
        Error {
            doing: "patching",
            kind: "Task",
            namespace: "team".into(),
            name: "t".into(),
            source: Box::new(kube::Error::Api(Box::new(status))),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_tried_ever_less_often_and_what_failed_is_not() {
        let refusals = Refusals::default();
        for seconds in [3, 6, 12, 24, 48, 96, 180, 180] {
            let wait = refusals.wait("refused", &error(403));
            assert_eq!(wait, Duration::from_secs(seconds));
            assert_eq!(refusals.wait("failed", &error(500)), RETRY);
            tokio::time::advance(wait).await;
        }
        assert_eq!(refusals.wait("another", &error(422)), RETRY);
        tokio::time::advance(LONGEST * 2 + RETRY).await;
        assert_eq!(refusals.wait("refused", &error(403)), RETRY, "that was long ago");
        assert_eq!(refusals.0.lately.lock().unwrap().len(), 1, "what is over is forgotten");
    }
}
