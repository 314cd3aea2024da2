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

#[derive(Debug)]
struct State {
    doing: Doing,
    /// Whether a request on it was answered with a success.
    served: bool,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug)]
enum Doing {
    /// Waiting for a request since then, or for the end of the TLS handshake.
    Idle(Instant),
    /// Reading the headers of a request, since then.
    Headers(Instant),
    /// Reading the body of a request, since then.
    Body(Instant),
    /// Answering a request that was read.
    Reviewing,
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
pub(crate) struct Activity(Arc<Mutex<State>>);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            doing: Doing::Idle(Instant::now()),
            served: false,
        })))
    }

    /// Bytes came in.
    pub(crate) fn received(&self) {
        let mut state = self.lock();
        if matches!(state.doing, Doing::Idle(_)) {
            state.doing = Doing::Headers(Instant::now());
        }
    }

    /// The headers of a request came in; it is over when the return value is dropped.
    pub(crate) fn request(&self) -> Request {
        self.lock().doing = Doing::Body(Instant::now());
        Request(self.clone())
    }

    /// The body of the request came in.
    pub(crate) fn reviewing(&self) {
        self.lock().doing = Doing::Reviewing;
    }

    /// Whether a request was answered on the connection, and since when it waits for its peer. `None`: its peer waits for us.
    pub(crate) fn waits(&self) -> Option<(bool, Instant)> {
        let state = self.lock();
        match state.doing {
            Doing::Idle(since) | Doing::Headers(since) | Doing::Body(since) => Some((state.served, since)),
            Doing::Reviewing => None,
        }
    }

    /// Whether the connection is overdue, and if not, how long it may at least go on. How long a body may take is bounded
    /// where it is read.
    pub(crate) fn check(&self, patience: Patience) -> Result<Duration, Overdue> {
        let left =
            |since: Instant, patience: Duration| patience.checked_sub(since.elapsed()).filter(|left| !left.is_zero());
        let left = match self.lock().doing {
            Doing::Body(_) | Doing::Reviewing => return Ok(patience.header.min(patience.idle)),
            Doing::Headers(since) => left(since, patience.header).ok_or(Overdue::Headers)?,
            Doing::Idle(since) => left(since, patience.idle).ok_or(Overdue::Idle)?,
        };
        // Looked at again at least this often, because an idle connection may start to read headers meanwhile.
        Ok(left.min(patience.header))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being read or answered.
#[derive(Debug)]
pub(crate) struct Request(Activity);

impl Request {
    /// The request was answered, with a success or not.
    pub(crate) fn answered(self, success: bool) {
        self.0.lock().served |= success;
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.lock().doing = Doing::Idle(Instant::now());
    }
}
