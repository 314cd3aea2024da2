//! Whether the Secret's certificates are fit to be served: one pure function of the Secret, the names and the time.

mod reason;
#[cfg(test)]
mod tests;

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

pub use reason::{Reason, Scope};

use crate::{
    CA_CRT, CA_KEY, San, SecretData, TLS_CRT, TLS_KEY,
    x509::{bounds, is_trusted},
};

/// A certificate is replaced when less than one part in this many of its life is left; an authority so long before its end
/// that no leaf is cut short by it (C1).
const RENEW_PART: i128 = 3;
/// The shortest RSA key that clients accept, in bits.
const RSA_BITS: usize = 2048;

/// Why the certificates in `secret` must be replaced for a server that is dialled by `names`; `None`: they are good.
///
/// Looks at the whole chain, the authority first: a leaf is worth nothing under an expired authority (C1).
pub fn needs_new(secret: &SecretData, names: &[San], now: Timestamp) -> Option<Reason> {
    inspect(secret, names, now).err()
}

/// Why the certificates in `secret`, which somebody else provides, cannot be served at `now` under all of `names`; `None`: they
/// can. When to replace them is up to whoever provides them.
pub fn unfit(secret: &SecretData, names: &[San], now: Timestamp) -> Option<Reason> {
    inspect_given(secret, names, now).err()
}

fn inspect_given(secret: &SecretData, names: &[San], now: Timestamp) -> Result<(), Reason> {
    let authorities = certificates(secret.ca_crt.as_deref(), CA_CRT)?;
    let chain = certificates(secret.tls_crt.as_deref(), TLS_CRT)?;
    let (Some(first), Some((leaf_der, intermediates))) = (authorities.first(), chain.split_first()) else {
        return Err(Reason::Unreadable(CA_CRT));
    };
    let ca = parse(first, CA_CRT)?;
    let leaf = parse(leaf_der, TLS_CRT)?;
    if matches!(leaf.public_key().parsed(), Ok(PublicKey::RSA(key)) if key.key_size() < RSA_BITS) {
        return Err(Reason::WeakKey);
    }
    let key = secret.tls_key.as_deref().ok_or(Reason::Missing(TLS_KEY))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Reason::Unreadable(TLS_KEY))?;
    match CertifiedKey::from_der(chain.clone(), key, &ring::default_provider()) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => return Err(Reason::LeafKeyMismatch),
        Err(_) => return Err(Reason::Unreadable(TLS_KEY)),
    }
    let (ca_from, ca_until) = bounds(&ca).ok_or(Reason::Unreadable(CA_CRT))?;
    let (from, until) = bounds(&leaf).ok_or(Reason::Unreadable(TLS_CRT))?;
    match () {
        () if now < ca_from => return Err(Reason::CaNotYetValid),
        () if now >= ca_until => return Err(Reason::CaExpired),
        () if now < from => return Err(Reason::LeafNotYetValid),
        () if now >= until => return Err(Reason::LeafExpired),
        () => {}
    }
    verify(&authorities, leaf_der, intermediates, names, now)
}

fn inspect(secret: &SecretData, names: &[San], now: Timestamp) -> Result<(), Reason> {
    let ca_der = certificate(secret.ca_crt.as_deref(), CA_CRT)?;
    let ca = parse(&ca_der, CA_CRT)?;
    let ca_key = key(secret.ca_key.as_deref(), CA_KEY)?;
    if !ca.is_ca() {
        return Err(Reason::NotAnAuthority);
    }
    if ca_key.subject_public_key_info() != ca.public_key().raw {
        return Err(Reason::CaKeyMismatch);
    }
    let (ca_from, ca_until) = bounds(&ca).ok_or(Reason::Unreadable(CA_CRT))?;
    match () {
        () if now < ca_from => return Err(Reason::CaNotYetValid),
        () if now >= ca_until => return Err(Reason::CaExpired),
        () if is_old(ca_from, ca_until, now) => return Err(Reason::CaExpiresSoon),
        () => {}
    }

    let leaf_der = certificate(secret.tls_crt.as_deref(), TLS_CRT)?;
    let leaf = parse(&leaf_der, TLS_CRT)?;
    let leaf_key = key(secret.tls_key.as_deref(), TLS_KEY)?;
    if leaf_key.subject_public_key_info() != leaf.public_key().raw {
        return Err(Reason::LeafKeyMismatch);
    }
    let (from, until) = bounds(&leaf).ok_or(Reason::Unreadable(TLS_CRT))?;
    match () {
        () if now < from => return Err(Reason::LeafNotYetValid),
        () if now >= until => return Err(Reason::LeafExpired),
        () if is_old(from, until, now) => return Err(Reason::LeafExpiresSoon),
        () if until > ca_until => return Err(Reason::LeafOutlivesCa),
        () => {}
    }
    verify(&[ca_der], &leaf_der, &[], names, now)
}

/// Whether less than a third of a life is left.
fn is_old(from: Timestamp, until: Timestamp, now: Timestamp) -> bool {
    until.duration_since(now).as_nanos() * RENEW_PART < until.duration_since(from).as_nanos()
}

/// Verifies as a TLS client does: the chain first, then each name.
fn verify(
    authorities: &[CertificateDer<'static>],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    names: &[San],
    now: Timestamp,
) -> Result<(), Reason> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|_| Reason::Unreadable(CA_CRT))?;
    }
    if !is_trusted(leaf, intermediates, &roots, now) {
        return Err(Reason::LeafNotTrusted);
    }
    let leaf = ParsedCertificate::try_from(leaf).map_err(|_| Reason::Unreadable(TLS_CRT))?;
    for name in names {
        verify_server_name(&leaf, name.server_name()).map_err(|_| Reason::WrongNames)?;
    }
    Ok(())
}

fn certificate(entry: Option<&[u8]>, key: &'static str) -> Result<CertificateDer<'static>, Reason> {
    let pem = entry.ok_or(Reason::Missing(key))?;
    CertificateDer::from_pem_slice(pem).map_err(|_| Reason::Unreadable(key))
}

fn certificates(entry: Option<&[u8]>, key: &'static str) -> Result<Vec<CertificateDer<'static>>, Reason> {
    let pem = entry.ok_or(Reason::Missing(key))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or(Reason::Unreadable(key))
}

fn parse<'a>(der: &'a CertificateDer<'_>, key: &'static str) -> Result<X509Certificate<'a>, Reason> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|_| Reason::Unreadable(key))
}

fn key(entry: Option<&[u8]>, key: &'static str) -> Result<KeyPair, Reason> {
    let pem = entry.ok_or(Reason::Missing(key))?;
    let pem = std::str::from_utf8(pem).map_err(|_| Reason::Unreadable(key))?;
    KeyPair::from_pem(pem).map_err(|_| Reason::Unreadable(key))
}
