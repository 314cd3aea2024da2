//! What one connection is doing, and whether it has been doing it for too long.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// When a connection is to be given up, if nothing happens on it until then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the headers of a request whose first byte came.
    pub(crate) header: Duration,
    /// For the next request.
    pub(crate) idle: Duration,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug)]
enum Doing {
    /// Waiting for a request since then.
    Idle(Instant),
    /// Reading the headers of a request, since then.
    Headers(Instant),
    /// Answering so many requests.
    Answering(usize),
}

/// Why a connection was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// No request came.
    Idle,
    /// The headers did not end.
    Headers,
}

/// What one connection is doing, as its reads and its requests tell it.
///
/// Hyper's own header timeout also runs while a connection is idle, so it cannot tell a slow sender from a kept
/// connection; the API server keeps its connections for 90 s.
#[derive(Clone, Debug)]
pub(crate) struct Activity(Arc<Mutex<Doing>>);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Doing::Idle(Instant::now()))))
    }

    /// Bytes came in.
    pub(crate) fn received(&self) {
        let mut doing = self.lock();
        if matches!(*doing, Doing::Idle(_)) {
            *doing = Doing::Headers(Instant::now());
        }
    }

    /// A request came in; it is answered when the return value is dropped.
    pub(crate) fn answering(&self) -> Answering {
        let mut doing = self.lock();
        *doing = match *doing {
            Doing::Answering(others) => Doing::Answering(others + 1),
            Doing::Idle(_) | Doing::Headers(_) => Doing::Answering(1),
        };
        drop(doing);
        Answering(self.clone())
    }

    /// Whether the connection is overdue, and if not, how long it may at least go on.
    pub(crate) fn check(&self, patience: Patience) -> Result<Duration, Overdue> {
        let left =
            |since: Instant, patience: Duration| patience.checked_sub(since.elapsed()).filter(|left| !left.is_zero());
        let left = match *self.lock() {
            Doing::Answering(_) => return Ok(patience.header.min(patience.idle)),
            Doing::Headers(since) => left(since, patience.header).ok_or(Overdue::Headers)?,
            Doing::Idle(since) => left(since, patience.idle).ok_or(Overdue::Idle)?,
        };
        // Looked at again at least this often, because an idle connection may start to read headers meanwhile.
        Ok(left.min(patience.header))
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Answering(Activity);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut doing = self.0.lock();
        *doing = match *doing {
            Doing::Answering(requests) if requests > 1 => Doing::Answering(requests - 1),
            _ => Doing::Idle(Instant::now()),
        };
    }
}
