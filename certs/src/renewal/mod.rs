//! Whether a Secret's certificates must be renewed or cannot be served: pure functions of the Secret, the names and the time.
//!
//! Imports the certificate types. Called by `source`.

#[cfg(test)]
mod tests;

use std::fmt;

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls::{
    RootCertStore,
    client::verify_server_name,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
};

use crate::{
    san::San,
    secret::{CA_CRT, CA_KEY, SecretData, TLS_CRT, TLS_KEY},
    x509::{Validity, is_trusted},
};

/// A certificate is renewed when less than one part in this many of its life is left; an authority so early that it shortens no
/// leaf.
const RENEW_PART: i128 = 3;
/// The shortest RSA key that clients accept, in bits.
const RSA_BITS: usize = 2048;

/// Why the certificates in `secret`, which taskgate issues for `names`, must be replaced; `None` if they are good.
///
/// Checks the whole chain, the authority first: a leaf is useless under an expired authority (C1).
pub fn renewal_problem(secret: &SecretData, names: &[San], now: Timestamp) -> Option<CertificateProblem> {
    check_issued(secret, names, now).err()
}

/// Why the certificates in `secret`, which another component provides, cannot be served at `now` under all of `names`; `None` if
/// they can. Their provider renews them.
pub fn serving_problem(secret: &SecretData, names: &[San], now: Timestamp) -> Option<CertificateProblem> {
    check_provided(secret, names, now).err()
}

fn check_provided(secret: &SecretData, names: &[San], now: Timestamp) -> Result<(), CertificateProblem> {
    let authorities = certificates(secret.ca_crt.as_deref(), CA_CRT)?;
    let chain = certificates(secret.tls_crt.as_deref(), TLS_CRT)?;
    let (Some(first), Some((leaf_der, intermediates))) = (authorities.first(), chain.split_first()) else {
        return Err(CertificateProblem::Unreadable(CA_CRT));
    };
    let ca = parse(first, CA_CRT)?;
    let leaf = parse(leaf_der, TLS_CRT)?;
    if matches!(leaf.public_key().parsed(), Ok(PublicKey::RSA(key)) if key.key_size() < RSA_BITS) {
        return Err(CertificateProblem::WeakKey);
    }
    let key = secret.tls_key.as_deref().ok_or(CertificateProblem::Missing(TLS_KEY))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateProblem::Unreadable(TLS_KEY))?;
    match CertifiedKey::from_der(chain.clone(), key, &ring::default_provider()) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => return Err(CertificateProblem::LeafKeyMismatch),
        Err(_) => return Err(CertificateProblem::Unreadable(TLS_KEY)),
    }
    let ca = validity(&ca, CA_CRT)?;
    let leaf = validity(&leaf, TLS_CRT)?;
    match () {
        () if now < ca.from => return Err(CertificateProblem::CaNotYetValid),
        () if now >= ca.until => return Err(CertificateProblem::CaExpired),
        () if now < leaf.from => return Err(CertificateProblem::LeafNotYetValid),
        () if now >= leaf.until => return Err(CertificateProblem::LeafExpired),
        () => {}
    }
    verify(&authorities, leaf_der, intermediates, names, now)
}

fn check_issued(secret: &SecretData, names: &[San], now: Timestamp) -> Result<(), CertificateProblem> {
    let ca_der = certificate(secret.ca_crt.as_deref(), CA_CRT)?;
    let ca = parse(&ca_der, CA_CRT)?;
    let ca_key = key(secret.ca_key.as_deref(), CA_KEY)?;
    if !ca.is_ca() {
        return Err(CertificateProblem::NotAnAuthority);
    }
    if ca_key.subject_public_key_info() != ca.public_key().raw {
        return Err(CertificateProblem::CaKeyMismatch);
    }
    let ca = validity(&ca, CA_CRT)?;
    match () {
        () if now < ca.from => return Err(CertificateProblem::CaNotYetValid),
        () if now >= ca.until => return Err(CertificateProblem::CaExpired),
        () if ca.is_nearly_over(now, RENEW_PART) => return Err(CertificateProblem::CaExpiresSoon),
        () => {}
    }

    let leaf_der = certificate(secret.tls_crt.as_deref(), TLS_CRT)?;
    let leaf = parse(&leaf_der, TLS_CRT)?;
    let leaf_key = key(secret.tls_key.as_deref(), TLS_KEY)?;
    if leaf_key.subject_public_key_info() != leaf.public_key().raw {
        return Err(CertificateProblem::LeafKeyMismatch);
    }
    let validity = validity(&leaf, TLS_CRT)?;
    match () {
        () if now < validity.from => return Err(CertificateProblem::LeafNotYetValid),
        () if now >= validity.until => return Err(CertificateProblem::LeafExpired),
        () if validity.is_nearly_over(now, RENEW_PART) => return Err(CertificateProblem::LeafExpiresSoon),
        () if validity.until > ca.until => return Err(CertificateProblem::LeafOutlivesCa),
        () => {}
    }
    verify(&[ca_der], &leaf_der, &[], names, now)
}

fn validity(certificate: &X509Certificate<'_>, key: &'static str) -> Result<Validity, CertificateProblem> {
    Validity::of_certificate(certificate).ok_or(CertificateProblem::Unreadable(key))
}

/// Verifies as a TLS client does: the chain first, then each name.
fn verify(
    authorities: &[CertificateDer<'static>],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    names: &[San],
    now: Timestamp,
) -> Result<(), CertificateProblem> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority.clone())
            .map_err(|_| CertificateProblem::Unreadable(CA_CRT))?;
    }
    if !is_trusted(leaf, intermediates, &roots, now) {
        return Err(CertificateProblem::LeafNotTrusted);
    }
    let leaf = ParsedCertificate::try_from(leaf).map_err(|_| CertificateProblem::Unreadable(TLS_CRT))?;
    for name in names {
        verify_server_name(&leaf, name.server_name()).map_err(|_| CertificateProblem::WrongNames)?;
    }
    Ok(())
}

fn certificate(entry: Option<&[u8]>, key: &'static str) -> Result<CertificateDer<'static>, CertificateProblem> {
    let pem = entry.ok_or(CertificateProblem::Missing(key))?;
    CertificateDer::from_pem_slice(pem).map_err(|_| CertificateProblem::Unreadable(key))
}

fn certificates(entry: Option<&[u8]>, key: &'static str) -> Result<Vec<CertificateDer<'static>>, CertificateProblem> {
    let pem = entry.ok_or(CertificateProblem::Missing(key))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or(CertificateProblem::Unreadable(key))
}

fn parse<'a>(der: &'a CertificateDer<'_>, key: &'static str) -> Result<X509Certificate<'a>, CertificateProblem> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|_| CertificateProblem::Unreadable(key))
}

fn key(entry: Option<&[u8]>, key: &'static str) -> Result<KeyPair, CertificateProblem> {
    let pem = entry.ok_or(CertificateProblem::Missing(key))?;
    let pem = std::str::from_utf8(pem).map_err(|_| CertificateProblem::Unreadable(key))?;
    KeyPair::from_pem(pem).map_err(|_| CertificateProblem::Unreadable(key))
}

/// Why a Secret's certificates must be replaced or cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateProblem {
    /// The Secret does not exist.
    NoSecret,
    /// The Secret lacks this key.
    Missing(&'static str),
    /// The value of this key does not parse.
    Unreadable(&'static str),
    /// The authority's certificate may not sign others.
    NotAnAuthority,
    /// The authority's key belongs to another certificate.
    CaKeyMismatch,
    /// The authority becomes valid in the future.
    CaNotYetValid,
    /// The authority has expired.
    CaExpired,
    /// The authority has less than a third of its life left.
    CaExpiresSoon,
    /// The serving certificate's key is RSA with too few bits.
    WeakKey,
    /// The serving certificate's key belongs to another certificate.
    LeafKeyMismatch,
    /// The serving certificate becomes valid in the future.
    LeafNotYetValid,
    /// The serving certificate has expired.
    LeafExpired,
    /// The serving certificate has less than a third of its life left.
    LeafExpiresSoon,
    /// The serving certificate is valid for longer than its authority.
    LeafOutlivesCa,
    /// The authority did not sign the serving certificate for a server.
    LeafNotTrusted,
    /// The serving certificate lacks a name that clients dial.
    WrongNames,
}

/// The certificates to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalScope {
    /// The authority, and the serving certificate with it.
    Authority,
    /// The serving certificate only, under the same authority.
    Leaf,
}

impl CertificateProblem {
    /// The certificates to replace.
    pub fn scope(self) -> RenewalScope {
        match self {
            Self::NoSecret
            | Self::Missing(CA_CRT | CA_KEY)
            | Self::Unreadable(CA_CRT | CA_KEY)
            | Self::NotAnAuthority
            | Self::CaKeyMismatch
            | Self::CaNotYetValid
            | Self::CaExpired
            | Self::CaExpiresSoon => RenewalScope::Authority,
            Self::Missing(_)
            | Self::Unreadable(_)
            | Self::WeakKey
            | Self::LeafKeyMismatch
            | Self::LeafNotYetValid
            | Self::LeafExpired
            | Self::LeafExpiresSoon
            | Self::LeafOutlivesCa
            | Self::LeafNotTrusted
            | Self::WrongNames => RenewalScope::Leaf,
        }
    }
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSecret => formatter.write_str("there is no such Secret"),
            Self::Missing(key) => write!(formatter, "{key} is missing"),
            Self::Unreadable(key) => write!(formatter, "{key} does not parse"),
            Self::NotAnAuthority => write!(formatter, "{CA_CRT} may not sign certificates"),
            Self::CaKeyMismatch => write!(formatter, "{CA_KEY} is not the key of {CA_CRT}"),
            Self::CaNotYetValid => formatter.write_str("the authority is not valid yet"),
            Self::CaExpired => formatter.write_str("the authority has expired"),
            Self::CaExpiresSoon => formatter.write_str("the authority expires soon"),
            Self::WeakKey => write!(formatter, "{TLS_CRT} has an RSA key of less than {RSA_BITS} bits"),
            Self::LeafKeyMismatch => write!(formatter, "{TLS_KEY} is not the key of {TLS_CRT}"),
            Self::LeafNotYetValid => formatter.write_str("the serving certificate is not valid yet"),
            Self::LeafExpired => formatter.write_str("the serving certificate has expired"),
            Self::LeafExpiresSoon => formatter.write_str("the serving certificate expires soon"),
            Self::LeafOutlivesCa => formatter.write_str("the serving certificate outlives its authority"),
            Self::LeafNotTrusted => formatter.write_str("the serving certificate is not signed by the authority"),
            Self::WrongNames => formatter.write_str("the serving certificate lacks a name"),
        }
    }
}
