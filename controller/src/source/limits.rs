//! When a Workspace may send requests to its issue source. A limit that the source states holds for the token, an outage for the
//! address: the errors of one tenant do not concern another.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use taskgate_policy::source::backoff;
use tokio::{sync::OnceCell, time::Instant};

use super::{error::SourceError, github::Route};

/// Namespace and Workspace.
pub(super) type RouteKey = (String, String);
/// The login of a token's owner, once it was read.
pub(super) type Login = Arc<OnceCell<Option<String>>>;

/// The limits of all Workspaces.
#[derive(Default)]
pub(super) struct RouteLimits(Mutex<HashMap<RouteKey, RouteLimit>>);

#[derive(Default)]
struct RouteLimit {
    route: Option<Route>,
    own: Login,
    until: Option<Instant>,
    failures: u32,
}

impl RouteLimits {
    /// The login of `route`'s token. Another token, or another address, resets the limit.
    pub(super) fn login(&self, key: &RouteKey, route: &Route) -> Login {
        let mut limits = self.0.lock();
        let limit = limits.entry(key.clone()).or_default();
        if limit.route.as_ref() != Some(route) {
            *limit = RouteLimit {
                route: Some(route.clone()),
                ..RouteLimit::default()
            };
        }
        Arc::clone(&limit.own)
    }

    /// Until when no request may be sent.
    pub(super) fn paused(&self, key: &RouteKey) -> Option<Instant> {
        let until = self.0.lock().get(key)?.until;
        until.filter(|until| *until > Instant::now())
    }

    /// Records the result of a request: its error, if there was one, and until when the source asks for no further request. `base` is
    /// the pause after a first failure, and `now` the time.
    pub(super) fn record(
        &self,
        key: &RouteKey,
        error: Option<&SourceError>,
        pause: Option<Timestamp>,
        base: Duration,
        now: Timestamp,
    ) {
        let mut limits = self.0.lock();
        let limit = limits.entry(key.clone()).or_default();
        let failed = matches!(error, Some(SourceError::Unreachable(_)));
        limit.failures = if failed { limit.failures.saturating_add(1) } else { 0 };
        let stated = pause.map(|until| {
            let wait = until.duration_since(now);
            Duration::try_from(wait).unwrap_or_default()
        });
        let waited = failed.then(|| backoff(limit.failures, base));
        limit.until = stated.max(waited).map(|wait| Instant::now() + wait).or(limit.until);
    }

    /// Removes the limits that `keep` does not want.
    pub(super) fn retain(&self, keep: impl Fn(&RouteKey) -> bool) {
        self.0.lock().retain(|key, _| keep(key));
    }
}
