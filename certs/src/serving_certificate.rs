//! A certificate chain with its key and the CA bundle for its clients, ready to be served.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use crate::{
    bundle::{BundleError, CaBundle},
    san::San,
    secret::{CA_CRT, SecretData, TLS_CRT, TLS_KEY},
    x509::{Validity, is_trusted_by, names_of},
};

/// A parsed certificate chain with its key. Handshakes share it.
#[derive(Clone, Debug)]
pub struct ServingCertificate {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) bundle: CaBundle,
    pub(crate) names: Vec<San>,
    pub(crate) leaf_not_after: Timestamp,
    pub(crate) ca: Validity,
}

/// The certificates cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServingCertificateError {
    /// An entry is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The chain does not parse.
    #[error("the serving certificate does not parse")]
    Chain,
    /// The private key does not parse.
    #[error("the serving certificate's key does not parse")]
    Key(#[source] rustls::pki_types::pem::Error),
    /// Key and certificate do not belong together, or rustls supports neither.
    #[error("the serving certificate and its key: {0}")]
    Pair(#[source] rustls::Error),
    /// The authorities do not parse.
    #[error("the authority's certificate: {0}")]
    Bundle(#[from] BundleError),
}

impl ServingCertificate {
    /// Parses a chain (the leaf first), its key and the CA bundle, all PEM.
    pub fn from_pem(chain: &[u8], key: &[u8], bundle: &[u8]) -> Result<Self, ServingCertificateError> {
        let bundle_pem = bundle;
        let bundle = CaBundle::from_pem(bundle_pem)?;
        let leaf = Validity::of(chain).ok_or(ServingCertificateError::Chain)?;
        let ca = Validity::of(bundle_pem).ok_or(BundleError::Empty)?;
        let certificates = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ServingCertificateError::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(ServingCertificateError::Key)?;
        let key = CertifiedKey::from_der(certificates, key, &ring::default_provider())
            .map_err(ServingCertificateError::Pair)?;
        Ok(Self {
            key: Arc::new(key),
            bundle,
            names: names_of(chain),
            leaf_not_after: leaf.until,
            ca,
        })
    }

    /// The CA bundle for clients.
    pub fn bundle(&self) -> &CaBundle {
        &self.bundle
    }

    /// The names that the leaf is valid for.
    pub fn names(&self) -> &[San] {
        &self.names
    }

    /// Whether neither leaf nor authority has expired at `now`.
    pub(crate) fn is_valid_at(&self, now: Timestamp) -> bool {
        now < self.leaf_not_after.min(self.ca.until)
    }

    /// The lifetime of the authority.
    pub(crate) fn ca_lifetime(&self) -> SignedDuration {
        self.ca.until.duration_since(self.ca.from)
    }

    /// Whether a client that trusts `published` (PEM) trusts this leaf at `now`.
    pub(crate) fn is_trusted_by(&self, published: &[u8], now: Timestamp) -> bool {
        is_trusted_by(&self.key.cert, published, now)
    }

    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert && self.bundle == other.bundle
    }
}

impl TryFrom<&SecretData> for ServingCertificate {
    type Error = ServingCertificateError;

    fn try_from(data: &SecretData) -> Result<Self, ServingCertificateError> {
        fn entry<'a>(bytes: Option<&'a Vec<u8>>, key: &'static str) -> Result<&'a [u8], ServingCertificateError> {
            bytes.map(Vec::as_slice).ok_or(ServingCertificateError::Missing(key))
        }
        Self::from_pem(
            entry(data.tls_crt.as_ref(), TLS_CRT)?,
            entry(data.tls_key.as_ref(), TLS_KEY)?,
            entry(data.ca_crt.as_ref(), CA_CRT)?,
        )
    }
}
