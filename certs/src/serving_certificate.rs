//! A certificate chain with its key and the CA bundle for its clients, ready to be served.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::{
    crypto::ring,
    pki_types::{PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use crate::{
    problem::{CertificateProblem, RSA_BITS},
    secret::{CA_CRT, SecretData, TLS_CRT, TLS_KEY},
    x509::{CaBundle, CertificateChain, San, Validity},
};

/// A parsed certificate chain with its key. Handshakes share it.
#[derive(Clone, Debug)]
pub struct ServingCertificate {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) bundle: CaBundle,
    pub(crate) chain: CertificateChain,
    pub(crate) ca: Validity,
}

impl ServingCertificate {
    /// Parses a chain (the leaf first), its key and the CA bundle, all PEM.
    pub fn from_pem(chain: &[u8], key: &[u8], bundle: &[u8]) -> Result<Self, CertificateProblem> {
        let ca = Validity::of(bundle).ok_or(CertificateProblem::Unreadable(CA_CRT))?;
        let bundle = CaBundle::from_pem(bundle)?;
        let chain = CertificateChain::from_pem(chain).ok_or(CertificateProblem::Unreadable(TLS_CRT))?;
        // ring does not read such a key.
        if chain.rsa_bits.is_some_and(|bits| bits < RSA_BITS) {
            return Err(CertificateProblem::WeakKey);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateProblem::Unreadable(TLS_KEY))?;
        let key = CertifiedKey::from_der(chain.certificates.clone(), key, &ring::default_provider());
        let key = key.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateProblem::LeafKeyMismatch,
            _ => CertificateProblem::Unreadable(TLS_KEY),
        })?;
        Ok(Self {
            key: Arc::new(key),
            bundle,
            chain,
            ca,
        })
    }

    /// The CA bundle for clients.
    pub fn bundle(&self) -> &CaBundle {
        &self.bundle
    }

    /// The names that the leaf is valid for.
    pub fn names(&self) -> &[San] {
        &self.chain.names
    }

    /// When the leaf expires.
    pub(crate) fn leaf_not_after(&self) -> Timestamp {
        self.chain.validity().until
    }

    /// Whether neither leaf nor authority has expired at `now`.
    pub(crate) fn is_valid_at(&self, now: Timestamp) -> bool {
        now < self.leaf_not_after().min(self.ca.until)
    }

    /// The lifetime of the authority.
    pub(crate) fn ca_lifetime(&self) -> SignedDuration {
        self.ca.until.duration_since(self.ca.from)
    }

    /// Whether a client that trusts `published` (PEM) trusts this leaf at `now`.
    pub(crate) fn is_trusted_by(&self, published: &[u8], now: Timestamp) -> bool {
        self.chain.is_trusted_by(published, now)
    }

    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert && self.bundle == other.bundle
    }
}

impl TryFrom<&SecretData> for ServingCertificate {
    type Error = CertificateProblem;

    fn try_from(data: &SecretData) -> Result<Self, CertificateProblem> {
        let bundle = data.ca_crt.as_ref().ok_or(CertificateProblem::Missing(CA_CRT))?;
        let chain = data.tls_crt.as_ref().ok_or(CertificateProblem::Missing(TLS_CRT))?;
        let key = data.tls_key.as_ref().ok_or(CertificateProblem::Missing(TLS_KEY))?;
        Self::from_pem(chain, key, bundle)
    }
}
