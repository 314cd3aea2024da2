//! A port: accepts TCP connections, completes the TLS handshake, serves HTTP on each connection, and drains.
//!
//! axum-server and kubert drain gracefully, but have no connection limit, no share per peer, no eviction of idle connections, no
//! limit on slow bodies, and no lame-duck stage.
//!
//! Imports `config` and `metrics` only. Called by `server`, which binds both ports; `admission` uses [`peers::Quota`] and the
//! [`connection::Caller`] of a request, `admin` the [`Lifecycle`].

pub(crate) mod connection;
mod lifecycle;
pub(crate) mod peers;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::{
    config::ServerLimits,
    metrics::{ConnectionRefusal, GaugeGuard, ServerMetrics},
};
use connection::{Activity, Caller, ConnectionContext, ConnectionTimeouts, serve};
pub use lifecycle::{Lifecycle, ShutdownStage};
use peers::{Capacity, Connections};

/// How long to wait when accepting fails, which happens when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    transport: Transport,
    connections: NonZeroUsize,
    context: ConnectionContext,
}

/// A port cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

#[derive(Clone)]
enum Transport {
    Plain,
    Tls { acceptor: TlsAcceptor, handshake: Duration },
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Plain => "Plain",
            Self::Tls { .. } => "Tls",
        })
    }
}

impl Listener {
    /// Binds `address` for `router`, in plain HTTP.
    pub async fn plain(
        address: SocketAddr,
        router: Router,
        limits: &ServerLimits,
        metrics: ServerMetrics,
        lifecycle: Lifecycle,
    ) -> Result<Self, BindError> {
        Self::bind(address, Transport::Plain, router, limits, metrics, lifecycle).await
    }

    /// Binds `address` for `router`, over TLS with `config`.
    pub async fn tls(
        address: SocketAddr,
        config: ServerConfig,
        router: Router,
        limits: &ServerLimits,
        metrics: ServerMetrics,
        lifecycle: Lifecycle,
    ) -> Result<Self, BindError> {
        let transport = Transport::Tls {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshake: limits.handshake,
        };
        Self::bind(address, transport, router, limits, metrics, lifecycle).await
    }

    async fn bind(
        address: SocketAddr,
        transport: Transport,
        router: Router,
        limits: &ServerLimits,
        metrics: ServerMetrics,
        lifecycle: Lifecycle,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let timeouts = ConnectionTimeouts {
            header: limits.header,
            idle: limits.idle,
        };
        Ok(Self {
            tcp,
            address,
            transport,
            connections: limits.connections,
            context: ConnectionContext {
                router,
                lifecycle,
                timeouts,
                metrics,
            },
        })
    }

    /// The bound address, with the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the lifecycle drains; then gives open requests `drain` to finish.
    pub async fn run(self, drain: Duration) {
        let mut open = Connections::new(self.connections.get());
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = self.context.lifecycle.reached(ShutdownStage::Draining) => break,
                // Joined so that finished tasks do not pile up. A connection does not panic: panics of its requests are caught.
                Some(_) = connections.join_next() => continue,
                accepted = self.tcp.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let peer = address.ip().to_canonical();
                    match open.ensure_capacity(peer) {
                        // Closed rather than left in the backlog: the API server learns at once, not after its timeout.
                        Capacity::Exhausted => {
                            self.context.metrics.connection_refused(ConnectionRefusal::TooMany);
                            continue;
                        }
                        Capacity::Evicted => self.context.metrics.connection_refused(ConnectionRefusal::Evicted),
                        Capacity::Free => {}
                    }
                    let activity = Activity::new();
                    let caller = Caller {
                        peer,
                        activity: activity.clone(),
                    };
                    let connection = connect(stream, self.transport.clone(), caller, self.context.clone());
                    open.insert(peer, activity, connections.spawn(connection));
                }
                Err(error) => {
                    warn!(address = %self.address, %error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.tcp);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(drain, all_ended).await.is_err() {
            info!(address = %self.address, connections = connections.len(), "closing connections that did not drain in time");
            connections.shutdown().await;
        }
    }
}

/// Completes the TLS handshake and serves the connection.
async fn connect(stream: TcpStream, transport: Transport, caller: Caller, context: ConnectionContext) {
    let _counted = GaugeGuard::new(context.metrics.connections.clone());
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot turn off Nagle's algorithm");
    }
    let Transport::Tls { acceptor, handshake } = transport else {
        return serve(stream, caller, context).await;
    };
    let accepted = tokio::select! {
        accepted = timeout(handshake, acceptor.accept(stream)) => accepted,
        () = context.lifecycle.reached(ShutdownStage::Draining) => return,
    };
    match accepted {
        Ok(Ok(stream)) => serve(stream, caller, context).await,
        Ok(Err(error)) => {
            debug!(%error, "a TLS handshake failed");
            if let Some(refusal) = handshake_refusal(&error, caller.peer) {
                context.metrics.connection_refused(refusal);
            }
        }
        Err(_) => context.metrics.connection_refused(ConnectionRefusal::HandshakeTimeout),
    }
}

/// The cause that a failed handshake counts under.
fn handshake_refusal(error: &io::Error, peer: IpAddr) -> Option<ConnectionRefusal> {
    use rustls::Error;
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        // The readiness check dials this port without a client certificate.
        Some(Error::NoCertificatesPresented) if peer.is_loopback() => None,
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => {
            Some(ConnectionRefusal::ClientCertificate)
        }
        _ => Some(ConnectionRefusal::Handshake),
    }
}
