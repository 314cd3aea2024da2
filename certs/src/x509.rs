//! X.509: names, validity and trust of certificates, without their keys.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use rustls::{
    RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
};

use crate::{problem::CertificateProblem, secret::CA_CRT};

/// How many authorities a bundle has at most, besides its own.
const MAX_OTHERS: usize = 8;

/// A DNS name or an IP address that clients dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct San(ServerName<'static>);

/// The text is neither a DNS name nor an IP address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither a DNS name nor an IP address")]
pub struct InvalidSan(String);

impl San {
    /// The names by which the API server and others in the cluster may dial a Service. The API server uses the first.
    pub fn of_service(service: &str, namespace: &str) -> Result<Vec<Self>, InvalidSan> {
        [
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ]
        .iter()
        .map(|name| name.parse())
        .collect()
    }

    /// The name as rustls represents it.
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.0
    }

    /// The name as text.
    pub fn as_str(&self) -> Cow<'_, str> {
        self.0.to_str()
    }
}

impl FromStr for San {
    type Err = InvalidSan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ServerName::try_from(text.to_owned())
            .map(Self)
            .map_err(|_| InvalidSan(text.to_owned()))
    }
}

impl From<IpAddr> for San {
    fn from(address: IpAddr) -> Self {
        Self(address.into())
    }
}

impl fmt::Display for San {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.as_str())
    }
}

/// The validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its start.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

impl Validity {
    /// The validity of the first certificate in `pem`; `None` if there is none.
    pub fn of(pem: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        Self::of_certificate(&certificate)
    }

    /// The validity of `certificate`; `None` if its times are out of range.
    fn of_certificate(certificate: &X509Certificate<'_>) -> Option<Self> {
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

/// A certificate chain without its key, the leaf first.
#[derive(Clone, Debug)]
pub struct CertificateChain {
    /// Never empty.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    validity: Validity,
    /// The DNS names and IP addresses of the leaf.
    pub(crate) names: Vec<San>,
    /// The public key of the leaf, a `SubjectPublicKeyInfo` in DER.
    pub(crate) public_key: Vec<u8>,
    /// The bits of the leaf's key, if it is RSA.
    pub(crate) rsa_bits: Option<usize>,
    /// Whether the leaf may sign certificates.
    pub(crate) is_ca: bool,
}

impl CertificateChain {
    /// Parses a chain, the leaf first; `None` if it does not parse.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.ok()?;
        let (_, leaf) = X509Certificate::from_der(certificates.first()?).ok()?;
        let public_key = leaf.public_key();
        Some(Self {
            validity: Validity::of_certificate(&leaf)?,
            names: names_of(&leaf),
            public_key: public_key.raw.to_vec(),
            rsa_bits: match public_key.parsed() {
                Ok(PublicKey::RSA(key)) => Some(key.key_size()),
                _ => None,
            },
            is_ca: leaf.is_ca(),
            certificates,
        })
    }

    /// The validity of the leaf.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether a client that trusts `bundle` (PEM) trusts the leaf at `now`.
    pub fn is_trusted_by(&self, bundle: &[u8], now: Timestamp) -> bool {
        self.is_signed_by(CertificateDer::pem_slice_iter(bundle).flatten(), now)
    }

    /// Whether a client that trusts `authorities` trusts the leaf at `now`.
    pub(crate) fn is_signed_by(
        &self,
        authorities: impl IntoIterator<Item = CertificateDer<'static>>,
        now: Timestamp,
    ) -> bool {
        let Some(leaf) = self.leaf() else { return false };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        let since_epoch = now.duration_since(Timestamp::UNIX_EPOCH).unsigned_abs();
        let verified = verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &roots,
            self.certificates.get(1..).unwrap_or_default(),
            UnixTime::since_unix_epoch(since_epoch),
            ring::default_provider().signature_verification_algorithms.all,
        );
        verified.is_ok()
    }

    /// Whether the leaf is valid for `name`.
    pub fn is_for(&self, name: &San) -> bool {
        self.leaf()
            .is_some_and(|leaf| verify_server_name(&leaf, name.server_name()).is_ok())
    }

    fn leaf(&self) -> Option<ParsedCertificate<'_>> {
        ParsedCertificate::try_from(self.certificates.first()?).ok()
    }
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<San> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => name.parse().ok(),
        GeneralName::IPAddress(bytes) => address(bytes).map(San::from),
        _ => None,
    });
    names.collect()
}

/// One or more CA certificates, as PEM. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle {
    pem: Arc<[u8]>,
    certificates: Arc<[CertificateDer<'static>]>,
}

impl CaBundle {
    /// Reads a bundle of at least one certificate; an error if it is none, or a certificate cannot be a trust anchor.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateProblem> {
        let unreadable = CertificateProblem::Unreadable(CA_CRT);
        let certificates: Result<Arc<[_]>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let bundle = Self {
            pem: pem.into(),
            certificates: certificates.map_err(|_| unreadable)?,
        };
        if bundle.certificates.is_empty() {
            return Err(unreadable);
        }
        bundle.roots()?;
        Ok(bundle)
    }

    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The bundle as PEM, as in a `caBundle`.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// The bundle as the trust anchors of a TLS client.
    pub fn roots(&self) -> Result<RootCertStore, CertificateProblem> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates.iter() {
            let added = roots.add(certificate.clone());
            added.map_err(|_| CertificateProblem::Unreadable(CA_CRT))?;
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

    #[test]
    fn names_and_addresses_parse_and_invalid_text_does_not() {
        assert!(matches!(
            "127.0.0.1".parse::<San>().unwrap().0,
            ServerName::IpAddress(_)
        ));
        assert!(matches!("::1".parse::<San>().unwrap().0, ServerName::IpAddress(_)));
        assert!(matches!("a.b.svc".parse::<San>().unwrap().0, ServerName::DnsName(_)));
        for bad in ["", "a b", "*.a.b", "a..b", "ä"] {
            assert!(bad.parse::<San>().is_err(), "{bad}");
        }
    }

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
        let broken = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        let hollow = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in [b"".as_slice(), broken, hollow] {
            let unreadable = CertificateProblem::Unreadable(CA_CRT);
            assert_eq!(CaBundle::from_pem(text).unwrap_err(), unreadable);
        }
    }
}
