//! Who may ask when: the limits of each Workspace's access to its tracker. A tracker's word counts for the token that it
//! was told, and its outages for the address: one tenant's trouble is not another's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use taskgate_policy::source::backoff;
use tokio::{sync::OnceCell, time::Instant};

use super::{github::Route, trouble::Trouble};

/// Namespace and Workspace: who asks.
pub(super) type RouteKey = (String, String);
/// The login that a token belongs to, once it was asked for.
pub(super) type Login = Arc<OnceCell<Option<String>>>;

/// The limits of all accesses.
#[derive(Default)]
pub(super) struct Limits(Mutex<HashMap<RouteKey, Limit>>);

#[derive(Default)]
struct Limit {
    route: Option<Route>,
    own: Login,
    until: Option<Instant>,
    failures: u32,
}

impl Limits {
    /// The login of `route`'s token. Another token, or another address, starts afresh.
    pub(super) fn login(&self, key: &RouteKey, route: &Route) -> Login {
        let mut limits = self.lock();
        let limit = limits.entry(key.clone()).or_default();
        if limit.route.as_ref() != Some(route) {
            *limit = Limit {
                route: Some(route.clone()),
                ..Limit::default()
            };
        }
        Arc::clone(&limit.own)
    }

    /// Until when nothing may be asked.
    pub(super) fn paused(&self, key: &RouteKey) -> Option<Instant> {
        let until = self.lock().get(key)?.until;
        until.filter(|until| *until > Instant::now())
    }

    /// Takes note of what came of a request: the trouble, if there was any, and until when the tracker wants to be left alone.
    /// `base` is the pause after a first failure.
    pub(super) fn note(&self, key: &RouteKey, trouble: Option<&Trouble>, pause: Option<Timestamp>, base: Duration) {
        let mut limits = self.lock();
        let limit = limits.entry(key.clone()).or_default();
        let failed = matches!(trouble, Some(Trouble::Unreachable(_)));
        limit.failures = if failed { limit.failures.saturating_add(1) } else { 0 };
        let told = pause.map(|until| {
            let wait = until.duration_since(Timestamp::now());
            Duration::try_from(wait).unwrap_or_default()
        });
        let waited = failed.then(|| backoff(limit.failures, base));
        limit.until = told.max(waited).map(|wait| Instant::now() + wait).or(limit.until);
    }

    /// Forgets accesses that nobody uses.
    pub(super) fn retain(&self, keep: impl Fn(&RouteKey) -> bool) {
        self.lock().retain(|key, _| keep(key));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RouteKey, Limit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
