//! One connection: HTTP/1.1 on it, its activity, its timeouts, and its end.

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, timeout},
};
use tokio_util::io::InspectReader;
use tower::ServiceExt as _;
use tracing::debug;

use super::lifecycle::{Lifecycle, ShutdownStage};
use crate::metrics::{ConnectionRefusal, ServerMetrics};

/// How long the graceful shutdown of an idle connection may take.
const IDLE_SHUTDOWN: Duration = Duration::from_secs(1);
/// The size of a connection's buffer, in bytes: the headers of a request have to fit.
const BUFFER: usize = 32 << 10;

/// What all connections of a listener share.
#[derive(Clone, Debug)]
pub(super) struct ConnectionContext {
    pub(super) router: Router,
    pub(super) lifecycle: Lifecycle,
    pub(super) timeouts: ConnectionTimeouts,
    pub(super) metrics: ServerMetrics,
}

/// How long a connection may wait for its peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionTimeouts {
    /// For the headers of a request whose first byte arrived.
    pub(super) header: Duration,
    /// For the next request.
    pub(super) idle: Duration,
}

/// The sender of a request; an extension of each request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The IP address. It is no identity: any pod may share an address with an API server.
    pub(crate) peer: IpAddr,
    /// What the connection is doing.
    pub(crate) activity: Activity,
}

impl Caller {
    /// The caller of a request that no listener accepted, as in tests.
    pub(crate) fn unknown() -> Self {
        Self {
            peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            activity: Activity::new(),
        }
    }
}

/// Serves requests of `caller` on `io` until the peer closes, a timeout passes, or the listener drains.
///
/// HTTP/1.1 only: the API server speaks no other version to webhooks, and so a connection has one request at a time.
pub(super) async fn serve<I>(io: I, caller: Caller, context: ConnectionContext)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = caller.activity.clone();
    let service = {
        let context = context.clone();
        service_fn(move |mut request: Request<Incoming>| {
            let active = caller.activity.request();
            let (router, lifecycle) = (context.router.clone(), context.lifecycle.clone());
            lifecycle.record_request();
            request.extensions_mut().insert(caller.clone());
            async move {
                let mut response = router.oneshot(request.map(Body::new)).await?;
                if lifecycle.stage() > ShutdownStage::Serving {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                active.answered(response.status().is_success());
                Ok::<_, std::convert::Infallible>(response)
            }
        })
    };
    let reading = activity.clone();
    let io = TokioIo::new(InspectReader::new(io, move |bytes| reading.received(bytes)));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(BUFFER);
    let mut connection = pin!(builder.serve_connection(io, service));
    let draining = context.lifecycle.reached(ShutdownStage::Draining);
    let timed_out = timed_out(&activity, context.timeouts);
    let shutdown_timeout = tokio::select! {
        end = connection.as_mut() => return log_end(end),
        () = draining => None,
        timed_out = timed_out => match timed_out {
            TimedOut::Headers => return context.metrics.connection_refused(ConnectionRefusal::HeaderTimeout),
            TimedOut::Idle => Some(IDLE_SHUTDOWN),
        },
    };
    connection.as_mut().graceful_shutdown();
    let end = match shutdown_timeout {
        // The listener bounds how long draining takes.
        None => Ok(connection.await),
        Some(limit) => timeout(limit, connection).await,
    };
    if let Ok(end) = end {
        log_end(end);
    }
}

/// Waits until the peer has been silent for longer than the timeout.
async fn timed_out(activity: &Activity, timeouts: ConnectionTimeouts) -> TimedOut {
    loop {
        match activity.check(timeouts) {
            Ok(left) => sleep(left).await,
            Err(timed_out) => return timed_out,
        }
    }
}

fn log_end(end: hyper::Result<()>) {
    if let Err(error) = end {
        debug!(%error, "a connection ended in error");
    }
}

/// What one connection is doing, as its reads and its requests report it.
///
/// Hyper's own header timeout also runs while a connection is idle, so it cannot tell a slow sender from a kept
/// connection; the API server keeps its connections for 90 s.
#[derive(Clone, Debug)]
pub(crate) struct Activity(Arc<Mutex<ActivityState>>);

#[derive(Debug)]
struct ActivityState {
    phase: ConnectionPhase,
    /// Whether a request on the connection was answered with a success.
    served: bool,
}

#[derive(Clone, Copy, Debug)]
enum ConnectionPhase {
    /// Waiting since then for a request, or for the end of the TLS handshake.
    Idle(Instant),
    /// Reading the headers of a request, since then.
    Headers(Instant),
    /// Reading the body of a request, since then.
    Body(Instant),
    /// Answering a request that was read.
    Reviewing,
}

/// Which timeout of a connection passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimedOut {
    Idle,
    Headers,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(ActivityState {
            phase: ConnectionPhase::Idle(Instant::now()),
            served: false,
        })))
    }

    /// Records that `bytes` arrived: none at the end of the stream.
    fn received(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if matches!(state.phase, ConnectionPhase::Idle(_)) && !bytes.is_empty() {
            state.phase = ConnectionPhase::Headers(Instant::now());
        }
    }

    /// Records that the headers of a request arrived. The request is over when the returned value is dropped.
    pub(super) fn request(&self) -> ActiveRequest {
        self.lock().phase = ConnectionPhase::Body(Instant::now());
        ActiveRequest(self.clone())
    }

    /// Records that the body of the request arrived.
    pub(crate) fn reviewing(&self) {
        self.lock().phase = ConnectionPhase::Reviewing;
    }

    /// Since when the connection has been waiting for its peer, and whether it ever served a request. `None` while its peer
    /// waits for an answer.
    pub(super) fn waiting(&self) -> Option<(bool, Instant)> {
        let state = self.lock();
        match state.phase {
            ConnectionPhase::Idle(since) | ConnectionPhase::Headers(since) | ConnectionPhase::Body(since) => {
                Some((state.served, since))
            }
            ConnectionPhase::Reviewing => None,
        }
    }

    /// How long to wait before the next check, or the timeout that passed. The body has its own timeouts, where it is read.
    fn check(&self, timeouts: ConnectionTimeouts) -> Result<Duration, TimedOut> {
        let left = |since: Instant, limit: Duration| limit.checked_sub(since.elapsed()).filter(|left| !left.is_zero());
        let left = match self.lock().phase {
            ConnectionPhase::Body(_) | ConnectionPhase::Reviewing => return Ok(timeouts.header.min(timeouts.idle)),
            ConnectionPhase::Headers(since) => left(since, timeouts.header).ok_or(TimedOut::Headers)?,
            ConnectionPhase::Idle(since) => left(since, timeouts.idle).ok_or(TimedOut::Idle)?,
        };
        // At least this often, because an idle connection may start to read headers meanwhile.
        Ok(left.min(timeouts.header))
    }

    fn lock(&self) -> MutexGuard<'_, ActivityState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being read or answered.
#[derive(Debug)]
pub(super) struct ActiveRequest(Activity);

impl ActiveRequest {
    /// Records that the request was answered, and whether with a success.
    pub(super) fn answered(self, success: bool) {
        self.0.lock().served |= success;
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.lock().phase = ConnectionPhase::Idle(Instant::now());
    }
}
