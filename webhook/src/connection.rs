//! One connection: HTTP/1.1 on it, its timeouts, and its end.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
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
/// How much of a connection is buffered, in bytes: the headers of a request have to fit.
const BUFFER: usize = 32 << 10;

/// What all connections of a listener share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) patience: Patience,
    pub(crate) metrics: Metrics,
}

/// Whose request it is: an extension of each.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Where it comes from. Not who it is: any pod may share an address with an API server.
    pub(crate) peer: IpAddr,
    /// What its connection is doing.
    pub(crate) activity: Activity,
}

impl Caller {
    /// Of a request that came over no listener.
    pub(crate) fn unknown() -> Self {
        Self {
            peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            activity: Activity::new(),
        }
    }
}

/// Serves requests of `caller` on `io` until the peer closes, nothing comes any more, or the listener drains.
///
/// HTTP/1.1 only: the API server speaks no other to webhooks, and so a connection has one request at a time.
pub(crate) async fn serve<I>(io: I, caller: Caller, shared: Shared)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = caller.activity.clone();
    let service = {
        let shared = shared.clone();
        service_fn(move |mut request: Request<Incoming>| {
            let noted = caller.activity.request();
            let (router, lifecycle) = (shared.router.clone(), shared.lifecycle.clone());
            lifecycle.note_request();
            request.extensions_mut().insert(caller.clone());
            async move {
                let mut answer = router.oneshot(request.map(Body::new)).await?;
                if lifecycle.stage() > Stage::Serving {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                noted.answered(answer.status().is_success());
                Ok::<_, std::convert::Infallible>(answer)
            }
        })
    };
    let io = TokioIo::new(Observed {
        io,
        activity: activity.clone(),
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(BUFFER);
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

/// Waits until nothing happened on the connection for too long.
async fn overdue(activity: &Activity, patience: Patience) -> Overdue {
    loop {
        match activity.check(patience) {
            Ok(left) => sleep(left).await,
            Err(overdue) => return overdue,
        }
    }
}

fn told(end: hyper::Result<()>) {
    if let Err(error) = end {
        debug!(%error, "a connection ended in error");
    }
}

/// Tells of bytes that come in.
struct Observed<I> {
    io: I,
    activity: Activity,
}

impl<I: AsyncRead + Unpin> AsyncRead for Observed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
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
