//! A serving certificate as it looks from outside, without its key: for diagnosis.

use jiff::{SignedDuration, Timestamp};
use rustls::{
    RootCertStore,
    client::verify_server_name,
    pki_types::{CertificateDer, pem::PemObject},
    server::ParsedCertificate,
};

use crate::{
    San,
    x509::{is_trusted, validity},
};

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// A certificate and those that lead from it to an authority.
#[derive(Clone, Debug)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    validity: Validity,
}

impl Validity {
    /// That of the first certificate in `pem`; `None` if there is none.
    pub fn of(pem: &[u8]) -> Option<Self> {
        let (from, until) = validity(pem)?;
        Some(Self { from, until })
    }

    /// How much is left at `now`; nothing when it is over.
    pub fn left(self, now: Timestamp) -> SignedDuration {
        self.until.duration_since(now).max(SignedDuration::ZERO)
    }

    /// Whether less than one part in `parts` of it is left at `now`.
    pub fn is_nearly_over(self, now: Timestamp, parts: i128) -> bool {
        self.left(now).as_nanos() * parts < self.until.duration_since(self.from).as_nanos()
    }
}

impl Chain {
    /// Reads a chain, the leaf first; `None` if it is none.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        Some(Self {
            certificates: certificates.ok()?,
            validity: Validity::of(pem)?,
        })
    }

    /// From when until when the leaf is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether whoever trusts `bundle` (PEM) trusts the leaf at `now`.
    pub fn is_trusted_by(&self, bundle: &[u8], now: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(bundle).flatten());
        let leaf = self.certificates.split_first();
        leaf.is_some_and(|(leaf, intermediates)| is_trusted(leaf, intermediates, &roots, now))
    }

    /// Whether the leaf is made out to `name`.
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
    use crate::{Lifetimes, issue_all};

    #[test]
    fn a_chain_is_judged_without_its_key() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let names = San::of_service("taskgate", "taskgate-system").unwrap();
        let [one, other] = [(); 2].map(|()| issue_all(&names, Lifetimes::default(), now).unwrap());
        let chain = Chain::from_pem(one.tls_crt.as_ref().unwrap()).unwrap();
        let authority = one.ca_crt.as_ref().unwrap();
        assert!(chain.is_trusted_by(authority, now));
        assert!(!chain.is_trusted_by(other.ca_crt.as_ref().unwrap(), now) && !chain.is_trusted_by(b"", now));
        assert!(!chain.is_trusted_by(authority, chain.validity().until + SignedDuration::from_secs(1)));
        assert!(chain.is_for(&names[0]) && !chain.is_for(&"other.svc".parse().unwrap()));
        let validity = chain.validity();
        let later = now + SignedDuration::from_hours(80 * 24);
        assert!(!validity.is_nearly_over(now, 4) && validity.is_nearly_over(later, 4));
        assert_eq!(validity.left(Timestamp::MAX), SignedDuration::ZERO);
        assert!(Chain::from_pem(b"nothing").is_none());
    }
}
