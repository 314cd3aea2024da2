//! A bundle of CA certificates, as in a `caBundle`.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::x509::Validity;

/// How many authorities a bundle has at most, besides its own.
const MAX_OTHERS: usize = 8;

/// One or more CA certificates, as PEM. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle {
    pem: Arc<[u8]>,
    certificates: Arc<[CertificateDer<'static>]>,
}

/// The bytes are not a bundle of CA certificates.
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

    /// The bundle as PEM, as in a `caBundle`.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// The bundle as the trust anchors of a TLS client.
    pub fn roots(&self) -> Result<RootCertStore, BundleError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates.iter() {
            roots.add(certificate.clone()).map_err(BundleError::Anchor)?;
        }
        Ok(roots)
    }

    /// This bundle, and from `others` (untrusted text with PEM) the authorities that are still valid at `now`: those that live
    /// longest, if there are too many. So what was trusted stays trusted.
    #[must_use]
    pub fn with(&self, others: &[u8], now: Timestamp) -> Self {
        let mut kept: Vec<(Timestamp, CertificateDer<'static>, &str)> = Vec::new();
        for (certificate, text) in blocks(others) {
            let known = self.certificates.contains(&certificate) || kept.iter().any(|(_, old, _)| *old == certificate);
            let is_anchor = RootCertStore::empty().add(certificate.clone()).is_ok();
            match Validity::of(text.as_bytes()) {
                Some(Validity { until, .. }) if until > now && is_anchor && !known => {
                    kept.push((until, certificate, text));
                }
                _ => {}
            }
        }
        kept.sort_by_key(|(until, ..)| std::cmp::Reverse(*until));
        kept.truncate(MAX_OTHERS);
        let mut pem = self.pem.trim_ascii_end().to_vec();
        let mut certificates = self.certificates.to_vec();
        for (_, certificate, text) in kept {
            pem.push(b'\n');
            pem.extend_from_slice(text.as_bytes());
            certificates.push(certificate);
        }
        pem.push(b'\n');
        Self {
            pem: pem.into(),
            certificates: certificates.into(),
        }
    }

    /// Whether `published` (PEM) contains all certificates of this bundle.
    pub fn is_within(&self, published: &[u8]) -> bool {
        let published: Vec<_> = CertificateDer::pem_slice_iter(published).flatten().collect();
        self.certificates
            .iter()
            .all(|certificate| published.contains(certificate))
    }
}

/// The certificates in `pem` that decode, each with its text. Text between them is ignored.
fn blocks(pem: &[u8]) -> impl Iterator<Item = (CertificateDer<'static>, &str)> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(pem).unwrap_or_default();
    text.split_inclusive(END).filter_map(|part| {
        let block = &part[part.rfind(BEGIN)?..];
        Some((CertificateDer::from_pem_slice(block.as_bytes()).ok()?, block))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issue::{Lifetimes, issue_all};

    fn authority() -> Vec<u8> {
        authority_at(Timestamp::UNIX_EPOCH)
    }

    fn authority_at(now: Timestamp) -> Vec<u8> {
        let data = issue_all(&["a.b".parse().unwrap()], Lifetimes::default(), now).unwrap();
        data.ca_crt.unwrap()
    }

    #[test]
    fn only_valid_authorities_are_merged() {
        let now = Timestamp::UNIX_EPOCH;
        let (ours, other) = (authority(), authority());
        let expired = authority_at(now - Lifetimes::default().ca);
        let bundle = CaBundle::from_pem(&ours).unwrap();
        let odd = [
            b"a comment\n-----BEGIN CERTIFICATE-----\n!",
            other.as_slice(),
            b"garbage",
            &expired,
            &ours,
            &other,
        ];
        let merged = bundle.with(&odd.concat(), now);
        assert!(merged.is_within(&[ours, other].concat()));
        assert_eq!(merged.certificates.len(), 2);
        assert_eq!(CaBundle::from_pem(merged.pem()).unwrap(), merged);
        assert_eq!(merged.with(b"\xff", now), merged);
    }

    #[test]
    fn a_bundle_is_bounded() {
        let others: Vec<u8> = (0..20).flat_map(|_| authority()).collect();
        let bundle = CaBundle::from_pem(&authority()).unwrap();
        assert_eq!(
            bundle.with(&others, Timestamp::UNIX_EPOCH).certificates.len(),
            1 + MAX_OTHERS
        );
    }

    #[test]
    fn a_bundle_is_within_one_that_contains_it_in_any_order() {
        let (ours, other) = (authority(), authority());
        let bundle = CaBundle::from_pem(&ours).unwrap();
        assert!(bundle.is_within(&ours));
        assert!(bundle.is_within(&[other.clone(), ours].concat()));
        assert!(!bundle.is_within(&other));
        assert!(!bundle.is_within(b""));
        assert!(!bundle.is_within(b"garbage"));
    }

    #[test]
    fn text_without_certificates_is_not_a_bundle() {
        assert!(matches!(CaBundle::from_pem(b""), Err(BundleError::Empty)));
        let broken = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(matches!(CaBundle::from_pem(broken), Err(BundleError::Pem(_))));
        let hollow = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(CaBundle::from_pem(hollow), Err(BundleError::Anchor(_))));
    }
}
