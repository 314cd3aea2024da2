//! A port: accepts connections, shakes hands, hands over, and ends.

use std::{io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use axum::Router;
use taskgate_certs::Resolver;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::{
    activity::Patience,
    config::Limits,
    connection::{Protocol, Shared, serve},
    guard::Counted,
    lifecycle::{Lifecycle, Stage},
    metrics::{ConnectionRefusal, Metrics},
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

    /// Binds `address` for `router`, over TLS with whatever `resolver` serves; HTTP/2 if the client asks for it.
    pub async fn tls(
        address: SocketAddr,
        resolver: &Arc<Resolver>,
        router: Router,
        limits: &Limits,
        metrics: Metrics,
        lifecycle: Lifecycle,
    ) -> Result<Self, BindError> {
        let config = resolver.server_config(&[b"h2", b"http/1.1"]);
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
        let slots = Arc::new(Semaphore::new(self.connections.get().min(Semaphore::MAX_PERMITS)));
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
                Ok((stream, _)) => match slots.clone().try_acquire_owned() {
                    Ok(slot) => {
                        let connection = connect(stream, self.transport.clone(), self.shared.clone());
                        connections.spawn(async move {
                            connection.await;
                            drop(slot);
                        });
                    }
                    // Closed rather than left waiting: the API server learns at once, not after its timeout.
                    Err(_) => self.shared.metrics.connection_refusal(ConnectionRefusal::TooMany),
                },
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
async fn connect(stream: TcpStream, transport: Transport, shared: Shared) {
    let _counted = Counted::new(shared.metrics.connections().clone());
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot turn off Nagle's algorithm");
    }
    let Transport::Tls { acceptor, handshake } = transport else {
        return serve(stream, Protocol::Http1, shared).await;
    };
    let accepted = tokio::select! {
        accepted = timeout(handshake, acceptor.accept(stream)) => accepted,
        () = shared.lifecycle.reached(Stage::Draining) => return,
    };
    match accepted {
        Ok(Ok(stream)) => {
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            serve(stream, protocol, shared).await;
        }
        Ok(Err(error)) => {
            debug!(%error, "a TLS handshake failed");
            shared.metrics.connection_refusal(ConnectionRefusal::Handshake);
        }
        Err(_) => shared.metrics.connection_refusal(ConnectionRefusal::HandshakeTimeout),
    }
}
