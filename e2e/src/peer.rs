//! A program in the cluster that is not the API server, and opens connections to taskgate's admission port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Api;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::{ControlPlane, Gate};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// Who connects: an address of its own, since limits count by peer and the API server is at 127.0.0.1.
#[derive(Clone)]
pub struct Peer {
    source: Ipv4Addr,
    target: SocketAddr,
    connector: TlsConnector,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("source", &self.source)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// A peer at 127.0.0.`host` that trusts the authority in the registration of `gate`.
    ///
    /// # Errors
    /// If the registration cannot be read or carries no authority.
    pub async fn new(cp: &ControlPlane, gate: &Gate, host: u8) -> anyhow::Result<Self> {
        let registrations: Api<MutatingWebhookConfiguration> = Api::all(cp.client());
        let registration = registrations.get("admission.taskgate.dev").await?;
        let webhooks = registration.webhooks.unwrap_or_default();
        let bundle = webhooks
            .first()
            .and_then(|webhook| webhook.client_config.ca_bundle.as_ref());
        let bundle = bundle.context("the registration has no caBundle")?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bundle.0) {
            roots.add(certificate.context("the caBundle is no PEM")?)?;
        }
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            source: Ipv4Addr::new(127, 0, 0, host),
            target: gate.url().trim_start_matches("https://").parse()?,
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// A TCP connection without a byte on it.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn dial(&self) -> anyhow::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((self.source, 0)))?;
        Ok(socket.connect(self.target).await?)
    }

    /// A connection after its TLS handshake.
    ///
    /// # Errors
    /// If it is refused or cut.
    pub async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
        let stream = timeout(PATIENCE, self.connector.connect(name, self.dial().await?)).await;
        Ok(stream.context("no TLS handshake")??)
    }

    /// A connection on which the headers of a POST of `length` bytes, and the first byte of its body, were sent.
    ///
    /// # Errors
    /// If it is refused or cut.
    pub async fn begin(&self, path_and_query: &str, length: usize) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut stream = self.connect().await?;
        let head = format!(
            "POST {path_and_query} HTTP/1.1\r\nhost: taskgate\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
        Ok(stream)
    }

    /// POSTs a JSON object; the status code and all of the answer.
    ///
    /// # Errors
    /// If the connection is refused, or cut without an answer.
    pub async fn post(&self, path_and_query: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let rest = body.strip_prefix('{').context("no JSON object")?;
        let mut stream = self.begin(path_and_query, body.len()).await?;
        // A server that refuses answers before it has read everything.
        let sent = stream.write_all(rest.as_bytes()).await;
        let answer = read_all(&mut stream).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let Some(status) = status else {
            bail!("no answer; sending ended with {sent:?}")
        };
        Ok((status, answer))
    }
}

/// What the server sends until it closes: an end in error is an end.
async fn read_all(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    // What came before the end is in `answer`.
    drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await);
    String::from_utf8_lossy(&answer).into_owned()
}
