//! A certificate chain with its key and the authorities that clients are to trust for it, ready to be served.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use crate::{
    BundleError, CaBundle, San, SecretData,
    x509::{is_trusted, names_of, validity},
};

/// Parsed once, when it arrives; handshakes only share it.
#[derive(Clone, Debug)]
pub struct Material {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) bundle: CaBundle,
    pub(crate) names: Vec<San>,
    pub(crate) leaf_not_after: Timestamp,
    pub(crate) ca_not_after: Timestamp,
    ca_not_before: Timestamp,
}

/// Certificates that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
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

impl Material {
    /// Reads a chain (the leaf first), its key and the bundle that clients are to trust, all PEM.
    pub fn from_pem(chain: &[u8], key: &[u8], bundle: &[u8]) -> Result<Self, MaterialError> {
        let bundle_pem = bundle;
        let bundle = CaBundle::from_pem(bundle_pem)?;
        let (_, leaf_not_after) = validity(chain).ok_or(MaterialError::Chain)?;
        let (ca_not_before, ca_not_after) = validity(bundle_pem).ok_or(BundleError::Empty)?;
        let certificates = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| MaterialError::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(MaterialError::Key)?;
        let key = CertifiedKey::from_der(certificates, key, &ring::default_provider()).map_err(MaterialError::Pair)?;
        Ok(Self {
            key: Arc::new(key),
            bundle,
            names: names_of(chain),
            leaf_not_after,
            ca_not_after,
            ca_not_before,
        })
    }

    /// The bundle that clients are to trust.
    pub fn bundle(&self) -> &CaBundle {
        &self.bundle
    }

    /// The names that the leaf is valid for.
    pub fn names(&self) -> &[San] {
        &self.names
    }

    /// Whether leaf and authority are both valid at `now`, as far as their ends go.
    pub(crate) fn is_valid_at(&self, now: Timestamp) -> bool {
        now < self.leaf_not_after.min(self.ca_not_after)
    }

    /// How long the authority lives in all.
    pub(crate) fn ca_life(&self) -> SignedDuration {
        self.ca_not_after.duration_since(self.ca_not_before)
    }

    /// Whether whoever trusts `published` (PEM) trusts this leaf at `now`.
    pub(crate) fn is_trusted_by(&self, published: &[u8], now: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(published).flatten());
        let leaf = self.key.cert.split_first();
        leaf.is_some_and(|(leaf, intermediates)| is_trusted(leaf, intermediates, &roots, now))
    }

    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert && self.bundle == other.bundle
    }
}

impl TryFrom<&SecretData> for Material {
    type Error = MaterialError;

    fn try_from(data: &SecretData) -> Result<Self, MaterialError> {
        fn entry<'a>(bytes: Option<&'a Vec<u8>>, key: &'static str) -> Result<&'a [u8], MaterialError> {
            bytes.map(Vec::as_slice).ok_or(MaterialError::Missing(key))
        }
        Self::from_pem(
            entry(data.tls_crt.as_ref(), crate::TLS_CRT)?,
            entry(data.tls_key.as_ref(), crate::TLS_KEY)?,
            entry(data.ca_crt.as_ref(), crate::CA_CRT)?,
        )
    }
}
