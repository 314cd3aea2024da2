//! What a certificate says of itself, and who trusts it.

use jiff::Timestamp;
use rustls::{
    RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::San;

/// Whether whoever trusts `roots` trusts this chain at `now`.
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

/// From when until when the first certificate in `pem` is valid.
pub(crate) fn validity(pem: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    bounds(&certificate)
}

/// The names that the first certificate in `pem` is valid for, as far as they can be dialled.
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

/// From when until when it is valid.
pub(crate) fn bounds(certificate: &X509Certificate<'_>) -> Option<(Timestamp, Timestamp)> {
    let validity = certificate.validity();
    let time = |time: &x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((time(&validity.not_before)?, time(&validity.not_after)?))
}
