//! The certificates that clients are to trust.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// One or more authority certificates, as PEM. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle {
    pem: Arc<[u8]>,
    certificates: Arc<[CertificateDer<'static>]>,
}

/// The bytes are not a bundle of certificates.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A PEM block does not decode.
    #[error("not PEM: {0}")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// There is no certificate in it.
    #[error("no certificate in it")]
    Empty,
    /// A certificate cannot be a trust anchor.
    #[error("a certificate cannot be trusted as an authority: {0}")]
    Anchor(#[source] rustls::Error),
}

impl CaBundle {
    /// Reads a bundle of at least one certificate.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BundleError> {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Arc<[_]>, _>>()
            .map_err(BundleError::Pem)?;
        if certificates.is_empty() {
            return Err(BundleError::Empty);
        }
        let bundle = Self {
            pem: pem.into(),
            certificates,
        };
        bundle.roots()?;
        Ok(bundle)
    }

    /// The bundle as it goes into a `caBundle`.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// The bundle as a TLS client trusts it.
    pub fn roots(&self) -> Result<RootCertStore, BundleError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates.iter() {
            roots.add(certificate.clone()).map_err(BundleError::Anchor)?;
        }
        Ok(roots)
    }

    /// Whether whoever trusts `published` (PEM, possibly with more certificates in it) trusts all of this bundle.
    pub fn is_within(&self, published: &[u8]) -> bool {
        let published: Vec<_> = CertificateDer::pem_slice_iter(published).flatten().collect();
        self.certificates
            .iter()
            .all(|certificate| published.contains(certificate))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::issue_all;

    fn authority() -> Vec<u8> {
        let data = issue_all(&["a.b".parse().unwrap()], Timestamp::UNIX_EPOCH).unwrap();
        data.ca_crt.unwrap()
    }

    #[test]
    fn a_bundle_is_within_what_contains_it_in_any_order() {
        let (ours, other) = (authority(), authority());
        let bundle = CaBundle::from_pem(&ours).unwrap();
        assert!(bundle.is_within(&ours));
        assert!(bundle.is_within(&[other.clone(), ours].concat()));
        assert!(!bundle.is_within(&other));
        assert!(!bundle.is_within(b""));
        assert!(!bundle.is_within(b"garbage"));
    }

    #[test]
    fn what_holds_no_certificate_is_no_bundle() {
        assert!(matches!(CaBundle::from_pem(b""), Err(BundleError::Empty)));
        let broken = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(matches!(CaBundle::from_pem(broken), Err(BundleError::Pem(_))));
        let hollow = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(CaBundle::from_pem(hollow), Err(BundleError::Anchor(_))));
    }
}
