//! A TLS handshake with ourselves, as the API server would do it: through the served port, trusting what belongs to it
//! (C2, C6).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, crypto::ring};
use taskgate_certs::Resolver;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::Mutex, time::timeout};
use tokio_rustls::TlsConnector;

/// How long a result is good for. Probes of several kubelets and people share it.
const FRESH: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(2);

/// Shakes hands with the port that serves reviews.
#[derive(Debug)]
pub(crate) struct Probe {
    address: SocketAddr,
    resolver: Arc<Resolver>,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Probe {
    /// Of the port bound at `address`.
    pub(crate) fn new(address: SocketAddr, resolver: Arc<Resolver>) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self {
            address: SocketAddr::new(ip, address.port()),
            resolver,
            last: Mutex::new(None),
        }
    }

    /// The result of a handshake, at most a few seconds old if it was good. A bad one is tried again every time.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((at, Ok(()))) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(());
        }
        let result = match timeout(PATIENCE, self.shake_hands()).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no handshake within {} s", PATIENCE.as_secs())),
        };
        *last = Some((Instant::now(), result.clone()));
        result
    }

    async fn shake_hands(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let served = self.resolver.served().ok_or("no certificate is served yet")?;
        let name = served.names().first().ok_or("the served certificate has no name")?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(served.bundle().roots()?)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name.server_name().clone(), stream).await?;
        stream.shutdown().await?;
        Ok(())
    }
}
