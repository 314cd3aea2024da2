//! A port: accepts connections, shakes hands, hands over, and ends.
//!
//! Its own, because axum-server and kubert's server drain, but limit neither connections, in all and per peer, nor slow bodies.

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
    activity::{Activity, Patience},
    config::Limits,
    connection::{Caller, Shared, serve},
    guard::Counted,
    lifecycle::{Lifecycle, Stage},
    metrics::{ConnectionRefusal, Metrics},
    peers::{Connections, Room},
};

/// How long to wait when accepting fails, which happens when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    transport: Transport,
    connections: NonZeroUsize,
    shared: Shared,
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
        limits: &Limits,
        metrics: Metrics,
        lifecycle: Lifecycle,
    ) -> Result<Self, BindError> {
        Self::bind(address, Transport::Plain, router, limits, metrics, lifecycle).await
    }

    /// Binds `address` for `router`, over TLS as `config` says.
    pub async fn tls(
        address: SocketAddr,
        config: ServerConfig,
        router: Router,
        limits: &Limits,
        metrics: Metrics,
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
        limits: &Limits,
        metrics: Metrics,
        lifecycle: Lifecycle,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let patience = Patience {
            header: limits.header,
            idle: limits.idle,
        };
        Ok(Self {
            tcp,
            address,
            transport,
            connections: limits.connections,
            shared: Shared {
                router,
                lifecycle,
                patience,
                metrics,
            },
        })
    }

    /// The address that was bound, with the port that port 0 became.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the lifecycle drains; then gives what runs `drain` to finish.
    pub async fn run(self, drain: Duration) {
        let mut open = Connections::new(self.connections.get());
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = self.shared.lifecycle.reached(Stage::Draining) => break,
                // Their ends are looked at so that they do not pile up. A connection does not panic: its requests'
                // panics are caught.
                Some(_) = connections.join_next() => continue,
                accepted = self.tcp.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let peer = address.ip().to_canonical();
                    match open.make_room(peer) {
                        // Closed rather than left waiting: the API server learns at once, not after its timeout.
                        Room::None => {
                            self.shared.metrics.connection_refusal(ConnectionRefusal::TooMany);
                            continue;
                        }
                        Room::Made => self.shared.metrics.connection_refusal(ConnectionRefusal::Evicted),
                        Room::Free => {}
                    }
                    let activity = Activity::new();
                    let caller = Caller {
                        peer,
                        activity: activity.clone(),
                    };
                    let connection = connect(stream, self.transport.clone(), caller, self.shared.clone());
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
            info!(address = %self.address, left = connections.len(), "cutting off what did not finish in time");
            connections.shutdown().await;
        }
    }
}

/// Shakes hands and serves.
async fn connect(stream: TcpStream, transport: Transport, caller: Caller, shared: Shared) {
    let _counted = Counted::new(shared.metrics.connections().clone());
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot turn off Nagle's algorithm");
    }
    let Transport::Tls { acceptor, handshake } = transport else {
        return serve(stream, caller, shared).await;
    };
    let accepted = tokio::select! {
        accepted = timeout(handshake, acceptor.accept(stream)) => accepted,
        () = shared.lifecycle.reached(Stage::Draining) => return,
    };
    match accepted {
        Ok(Ok(stream)) => serve(stream, caller, shared).await,
        Ok(Err(error)) => {
            debug!(%error, "a TLS handshake failed");
            if let Some(refusal) = refusal(&error, caller.peer) {
                shared.metrics.connection_refusal(refusal);
            }
        }
        Err(_) => shared.metrics.connection_refusal(ConnectionRefusal::HandshakeTimeout),
    }
}

/// What a handshake that failed counts as.
fn refusal(error: &io::Error, peer: IpAddr) -> Option<ConnectionRefusal> {
    use rustls::Error;
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        // The readiness check shakes hands as well, and has no certificate.
        Some(Error::NoCertificatesPresented) if peer.is_loopback() => None,
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => {
            Some(ConnectionRefusal::ClientCertificate)
        }
        _ => Some(ConnectionRefusal::Handshake),
    }
}
