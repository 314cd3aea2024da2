//! What TLS clients see of the resolver.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use taskgate_certs::{Lifetimes, Resolver, ServingCertificate, issue_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

type Ends = (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>);

fn new_certificate() -> anyhow::Result<ServingCertificate> {
    let data = issue_all(&["taskgate.test".parse()?], Lifetimes::default(), Timestamp::now())?;
    Ok(ServingCertificate::try_from(&data)?)
}

/// A client that trusts `trusted` dials `acceptor`.
async fn connect(acceptor: &TlsAcceptor, trusted: &ServingCertificate) -> anyhow::Result<Ends> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted.bundle().roots()?)
        .with_no_client_auth();
    let (near, far) = duplex(64 * 1024);
    let connector = TlsConnector::from(Arc::new(config));
    let (client, server) = tokio::join!(
        connector.connect(ServerName::try_from("taskgate.test")?, near),
        acceptor.accept(far)
    );
    Ok((client?, server?))
}

async fn exchange((client, server): &mut Ends) -> anyhow::Result<()> {
    client.write_all(b"ping").await?;
    let mut heard = [0; 4];
    server.read_exact(&mut heard).await?;
    assert_eq!(&heard, b"ping");
    Ok(())
}

fn leaf(ends: &Ends) -> Option<CertificateDer<'static>> {
    let (_, connection) = ends.0.get_ref();
    Some(connection.peer_certificates()?.first()?.clone().into_owned())
}

#[tokio::test]
async fn a_new_certificate_serves_the_next_handshake_and_disturbs_no_connection() -> anyhow::Result<()> {
    let resolver = Resolver::new();
    // One configuration, before there is any certificate.
    let acceptor = TlsAcceptor::from(Arc::new(resolver.server_config(&[b"http/1.1"], None)));
    let (first, second) = (new_certificate()?, new_certificate()?);
    assert!(connect(&acceptor, &first).await.is_err());

    resolver.serve(first.clone());
    let mut old = connect(&acceptor, &first).await?;
    exchange(&mut old).await?;
    resolver.serve(second.clone());
    let mut new = connect(&acceptor, &second).await?;
    exchange(&mut new).await?;
    exchange(&mut old).await?;
    assert_ne!(leaf(&old), leaf(&new));
    assert!(
        connect(&acceptor, &first).await.is_err(),
        "the old authority is no longer served"
    );
    Ok(())
}
