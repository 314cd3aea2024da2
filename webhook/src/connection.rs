//! One connection: HTTP/1.1 or HTTP/2 on it, its timeouts, and its end.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{HeaderValue, Request, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{sleep, timeout},
};
use tower::ServiceExt as _;
use tracing::debug;

use crate::{
    activity::{Activity, Overdue, Patience},
    lifecycle::{Lifecycle, Stage},
    metrics::{ConnectionRefusal, Metrics},
};

/// How long an idle connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Requests at the same time on one HTTP/2 connection.
const STREAMS: u32 = 256;

/// The protocol, as ALPN settled it. Without ALPN it is HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// What all connections of a listener share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) patience: Patience,
    pub(crate) metrics: Metrics,
}

/// Serves requests on `io` until the peer closes, nothing comes any more, or the listener drains.
pub(crate) async fn serve<I>(io: I, protocol: Protocol, shared: Shared)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::new();
    let service = {
        let (activity, shared) = (activity.clone(), shared.clone());
        service_fn(move |request: Request<Incoming>| {
            let answering = activity.answering();
            let (router, lifecycle) = (shared.router.clone(), shared.lifecycle.clone());
            lifecycle.note_request();
            async move {
                let version = request.version();
                let mut answer = router.oneshot(request.map(Body::new)).await?;
                // HTTP/2 has no such header; its connections end by GOAWAY when the listener drains.
                if version < Version::HTTP_2 && lifecycle.stage() > Stage::Serving {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                drop(answering);
                Ok::<_, std::convert::Infallible>(answer)
            }
        })
    };
    let io = TokioIo::new(Observed {
        io,
        // On HTTP/2 frames come in all the time that start no request.
        activity: (protocol == Protocol::Http1).then(|| activity.clone()),
    });
    let builder = builder(protocol);
    let mut connection = pin!(builder.serve_connection(io, service));
    let draining = shared.lifecycle.reached(Stage::Draining);
    let overdue = overdue(&activity, shared.patience);
    let patience = tokio::select! {
        end = connection.as_mut() => return told(end),
        () = draining => None,
        overdue = overdue => match overdue {
            Overdue::Headers => return shared.metrics.connection_refusal(ConnectionRefusal::HeaderTimeout),
            Overdue::Idle => Some(GOODBYE),
        },
    };
    connection.as_mut().graceful_shutdown();
    let end = match patience {
        // The listener bounds how long draining takes.
        None => Ok(connection.await),
        Some(patience) => timeout(patience, connection).await,
    };
    if let Ok(end) = end {
        told(end);
    }
}

fn builder(protocol: Protocol) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Duration::from_secs(30));
    match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    }
}

/// Waits until nothing happened on the connection for too long.
async fn overdue(activity: &Activity, patience: Patience) -> Overdue {
    loop {
        match activity.check(patience) {
            Ok(left) => sleep(left).await,
            Err(overdue) => return overdue,
        }
    }
}

fn told(end: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = end {
        debug!(error, "a connection ended in error");
    }
}

/// Tells of bytes that come in.
struct Observed<I> {
    io: I,
    activity: Option<Activity>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Observed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if let Some(activity) = &self.activity
            && buffer.filled().len() > before
        {
            activity.received();
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Observed<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
