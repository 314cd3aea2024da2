//! Client authentication: the authority that signs clients' certificates, reloaded from a file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::{error_chain, x509::CaBundle};

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The file has no usable authority.
#[derive(Debug, thiserror::Error)]
pub enum ClientAuthorityError {
    /// It cannot be read.
    #[error("reading {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// It holds none.
    #[error("{} holds no authority in PEM", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
    },
}

/// Verifies that a client's certificate is signed by the authority in a file, and is for one of certain names.
#[derive(Debug)]
pub struct ClientAuthority {
    file: PathBuf,
    names: Vec<String>,
    current: ArcSwap<CurrentVerifier>,
}

#[derive(Debug)]
struct CurrentVerifier {
    pem: Vec<u8>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientAuthority {
    /// The authority in `file`. It accepts clients whose common name or DNS name is one of `names`; all clients if `names` is empty.
    ///
    /// # Errors
    /// If the file has no usable authority.
    pub fn read(file: PathBuf, names: Vec<String>) -> Result<Arc<Self>, ClientAuthorityError> {
        let pem = std::fs::read(&file).map_err(|source| read_error(&file, source))?;
        let verifier = verifier(&file, &pem)?;
        Ok(Arc::new(Self {
            file,
            names,
            current: ArcSwap::from_pointee(CurrentVerifier { pem, verifier }),
        }))
    }

    /// Reloads the file until `shutdown`. A file without a usable authority changes nothing. Open connections stay.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.keep_reading()).await;
    }

    async fn keep_reading(&self) {
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            ticks.tick().await;
            let problem = self.reload().await.err().map(|problem| error_chain(&problem));
            if problem != last {
                if let Some(problem) = &problem {
                    error!(error = problem, "the client authority cannot be renewed");
                } else {
                    info!("the client authority can be read again");
                }
                last = problem;
            }
        }
    }

    async fn reload(&self) -> Result<(), ClientAuthorityError> {
        let pem = tokio::fs::read(&self.file)
            .await
            .map_err(|source| read_error(&self.file, source))?;
        if pem != self.current.load().pem {
            let verifier = verifier(&self.file, &pem)?;
            self.current.store(Arc::new(CurrentVerifier { pem, verifier }));
            info!("a new client authority is trusted");
        }
        Ok(())
    }

    fn is_named(&self, certificate: &CertificateDer<'_>) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let is_one = |name: &str| self.names.iter().any(|wanted| wanted == name);
        let mut common = certificate.subject().iter_common_name();
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let mut alternative = alternative.iter().flat_map(|names| &names.value.general_names);
        common.any(|name| name.as_str().is_ok_and(is_one))
            || alternative.any(|name| matches!(name, GeneralName::DNSName(name) if is_one(name)))
    }

    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.current.load().verifier.clone()
    }
}

impl ClientCertVerifier for ClientAuthority {
    /// No hints: the authority may change before the next handshake, and a client has only one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier().verify_client_cert(certificate, intermediates, now)?;
        if self.is_named(certificate) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier().supported_verify_schemes()
    }
}

fn read_error(file: &Path, source: io::Error) -> ClientAuthorityError {
    ClientAuthorityError::Read {
        file: file.to_owned(),
        source,
    }
}

fn verifier(file: &Path, pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, ClientAuthorityError> {
    let unusable = || ClientAuthorityError::Unusable { file: file.to_owned() };
    let roots = CaBundle::from_pem(pem).and_then(|bundle| bundle.roots());
    let roots = Arc::new(roots.map_err(|_| unusable())?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(ring::default_provider())).build();
    verifier.map_err(|_| unusable())
}
