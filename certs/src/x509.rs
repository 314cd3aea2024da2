//! X.509: validity, names and trust of certificates, without their keys.

use jiff::{SignedDuration, Timestamp};
use rustls::{
    RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::ring,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::san::San;

/// Whether a client that trusts `roots` trusts this chain at `now`.
pub(crate) fn is_trusted(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: Timestamp,
) -> bool {
    let Ok(leaf) = ParsedCertificate::try_from(leaf) else {
        return false;
    };
    let since_epoch = now.duration_since(Timestamp::UNIX_EPOCH).unsigned_abs();
    verify_server_cert_signed_by_trust_anchor(
        &leaf,
        roots,
        intermediates,
        UnixTime::since_unix_epoch(since_epoch),
        ring::default_provider().signature_verification_algorithms.all,
    )
    .is_ok()
}

/// Whether a client that trusts `bundle` (PEM) trusts `chain`, the leaf first, at `now`.
pub(crate) fn is_trusted_by(chain: &[CertificateDer<'_>], bundle: &[u8], now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(bundle).flatten());
    let leaf = chain.split_first();
    leaf.is_some_and(|(leaf, intermediates)| is_trusted(leaf, intermediates, &roots, now))
}

/// The DNS names and IP addresses of the first certificate in `pem`.
pub(crate) fn names_of(pem: &[u8]) -> Vec<San> {
    let Ok(der) = CertificateDer::from_pem_slice(pem) else {
        return Vec::new();
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(std::net::IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(std::net::IpAddr::from),
    };
    names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => name.parse().ok(),
            GeneralName::IPAddress(bytes) => address(bytes).map(San::from),
            _ => None,
        })
        .collect()
}

/// The validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its start.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

/// A certificate chain without its key.
#[derive(Clone, Debug)]
pub struct CertificateChain {
    certificates: Vec<CertificateDer<'static>>,
    validity: Validity,
}

impl Validity {
    /// The validity of the first certificate in `pem`; `None` if there is none.
    pub fn of(pem: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        Self::of_certificate(&certificate)
    }

    /// The validity of `certificate`; `None` if its times are out of range.
    pub(crate) fn of_certificate(certificate: &X509Certificate<'_>) -> Option<Self> {
        let validity = certificate.validity();
        let time = |time: &x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        Some(Self {
            from: time(&validity.not_before)?,
            until: time(&validity.not_after)?,
        })
    }

    /// How long it remains valid at `now`; zero after its end.
    pub fn left(self, now: Timestamp) -> SignedDuration {
        self.until.duration_since(now).max(SignedDuration::ZERO)
    }

    /// Whether less than one part in `parts` of the life is left at `now`.
    pub fn is_nearly_over(self, now: Timestamp, parts: i128) -> bool {
        self.left(now).as_nanos() * parts < self.until.duration_since(self.from).as_nanos()
    }
}

impl CertificateChain {
    /// Parses a chain, the leaf first; `None` if it does not parse.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        Some(Self {
            certificates: certificates.ok()?,
            validity: Validity::of(pem)?,
        })
    }

    /// The validity of the leaf.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether a client that trusts `bundle` (PEM) trusts the leaf at `now`.
    pub fn is_trusted_by(&self, bundle: &[u8], now: Timestamp) -> bool {
        is_trusted_by(&self.certificates, bundle, now)
    }

    /// Whether the leaf is valid for `name`.
    pub fn is_for(&self, name: &San) -> bool {
        let leaf = self
            .certificates
            .first()
            .and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
        leaf.is_some_and(|leaf| verify_server_name(&leaf, name.server_name()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issue::{Lifetimes, issue_all};

    #[test]
    fn a_chain_is_checked_without_its_key() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let names = San::of_service("taskgate", "taskgate-system").unwrap();
        let [one, other] = [(); 2].map(|()| issue_all(&names, Lifetimes::default(), now).unwrap());
        let chain = CertificateChain::from_pem(one.tls_crt.as_ref().unwrap()).unwrap();
        let authority = one.ca_crt.as_ref().unwrap();
        assert!(chain.is_trusted_by(authority, now));
        assert!(!chain.is_trusted_by(other.ca_crt.as_ref().unwrap(), now) && !chain.is_trusted_by(b"", now));
        assert!(!chain.is_trusted_by(authority, chain.validity().until + SignedDuration::from_secs(1)));
        assert!(chain.is_for(&names[0]) && !chain.is_for(&"other.svc".parse().unwrap()));
        let validity = chain.validity();
        let later = now + SignedDuration::from_hours(80 * 24);
        assert!(!validity.is_nearly_over(now, 4) && validity.is_nearly_over(later, 4));
        assert_eq!(validity.left(Timestamp::MAX), SignedDuration::ZERO);
        assert!(CertificateChain::from_pem(b"nothing").is_none());
    }
}
