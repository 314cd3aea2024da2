//! Whether the Secret's certificates are fit to be served: one pure function of the Secret, the names and the time.

use std::fmt;

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls::{
    RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
};

use crate::{CA_CRT, CA_KEY, San, SecretData, TLS_CRT, TLS_KEY};

/// A certificate is replaced when less than one part in this many of its life is left; an authority so long before its end
/// that no leaf is cut short by it (C1).
const RENEW_PART: i128 = 3;
/// The shortest RSA key that clients accept, in bits.
const RSA_BITS: usize = 2048;

/// Why a Secret's certificates must be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The Secret does not exist.
    NoSecret,
    /// The Secret lacks this key.
    Missing(&'static str),
    /// What stands under this key does not parse.
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
    /// The serving certificate is not one that the authority signed for a server.
    LeafNotTrusted,
    /// The serving certificate lacks a name that clients dial.
    WrongNames,
}

/// What has to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The authority, and the serving certificate with it.
    Authority,
    /// The serving certificate; clients go on trusting the authority.
    Leaf,
}

impl Reason {
    /// What has to be replaced.
    pub fn scope(self) -> Scope {
        match self {
            Self::NoSecret
            | Self::Missing(CA_CRT | CA_KEY)
            | Self::Unreadable(CA_CRT | CA_KEY)
            | Self::NotAnAuthority
            | Self::CaKeyMismatch
            | Self::CaNotYetValid
            | Self::CaExpired
            | Self::CaExpiresSoon => Scope::Authority,
            Self::Missing(_)
            | Self::Unreadable(_)
            | Self::WeakKey
            | Self::LeafKeyMismatch
            | Self::LeafNotYetValid
            | Self::LeafExpired
            | Self::LeafExpiresSoon
            | Self::LeafOutlivesCa
            | Self::LeafNotTrusted
            | Self::WrongNames => Scope::Leaf,
        }
    }
}

impl fmt::Display for Reason {
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
    use x509_parser::extensions::GeneralName;
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

fn bounds(certificate: &X509Certificate<'_>) -> Option<(Timestamp, Timestamp)> {
    let validity = certificate.validity();
    let time = |time: &x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((time(&validity.not_before)?, time(&validity.not_after)?))
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{Lifetimes, issue_all, issue_leaf};

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn lives() -> Lifetimes {
        Lifetimes::default()
    }

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn names() -> Vec<San> {
        let mut names = San::of_service("taskgate", "taskgate-system").unwrap();
        names.push("127.0.0.1".parse().unwrap());
        names
    }

    fn fresh() -> SecretData {
        issue_all(&names(), lives(), start()).unwrap()
    }

    #[test]
    fn what_was_just_issued_is_good_from_the_first_second() {
        assert_eq!(needs_new(&fresh(), &names(), start()), None);
        assert_eq!(needs_new(&fresh(), &names(), start() + 20 * DAY), None);
    }

    #[test]
    fn every_way_to_be_unfit_is_told_apart() {
        let (good, other) = (fresh(), fresh());
        let garbage = Some(b"-----BEGIN CERTIFICATE-----\n".to_vec());
        let with = |change: &dyn Fn(&mut SecretData)| {
            let mut data = good.clone();
            change(&mut data);
            data
        };
        // A leaf from before its authority was made anew with a later start, and so on: by issuing at other times.
        let old_leaf = issue_leaf(&good, &names(), lives(), start() - 85 * DAY).unwrap();
        let late_leaf = issue_leaf(&good, &names(), lives(), start() + 2 * DAY).unwrap();
        let table = [
            (with(&|d| d.ca_crt = None), Reason::Missing(CA_CRT)),
            (with(&|d| d.ca_key = None), Reason::Missing(CA_KEY)),
            (with(&|d| d.tls_crt = None), Reason::Missing(TLS_CRT)),
            (with(&|d| d.tls_key = None), Reason::Missing(TLS_KEY)),
            (with(&|d| d.ca_crt = garbage.clone()), Reason::Unreadable(CA_CRT)),
            (with(&|d| d.ca_key = Some(vec![0xff])), Reason::Unreadable(CA_KEY)),
            (with(&|d| d.tls_crt = Some(Vec::new())), Reason::Unreadable(TLS_CRT)),
            (with(&|d| d.tls_key = garbage.clone()), Reason::Unreadable(TLS_KEY)),
            (with(&|d| d.ca_crt.clone_from(&good.tls_crt)), Reason::NotAnAuthority),
            (with(&|d| d.ca_key.clone_from(&other.ca_key)), Reason::CaKeyMismatch),
            (with(&|d| d.tls_key.clone_from(&other.tls_key)), Reason::LeafKeyMismatch),
            (
                with(&|d| {
                    d.tls_crt.clone_from(&other.tls_crt);
                    d.tls_key.clone_from(&other.tls_key);
                }),
                Reason::LeafNotTrusted,
            ),
            (old_leaf, Reason::LeafExpiresSoon),
            (late_leaf, Reason::LeafNotYetValid),
            (
                issue_leaf(&good, &names()[..1], lives(), start()).unwrap(),
                Reason::WrongNames,
            ),
        ];
        for (data, reason) in table {
            assert_eq!(needs_new(&data, &names(), start()), Some(reason), "{reason}");
        }
    }

    #[test]
    fn the_authority_is_looked_at_before_the_leaf() {
        let data = fresh();
        let at = |time| needs_new(&data, &names(), time);
        assert_eq!(at(start() - DAY), Some(Reason::CaNotYetValid));
        assert_eq!(at(start() + 2 * lives().leaf), Some(Reason::LeafExpired));
        assert_eq!(at(start() + lives().ca * 2 / 3 + DAY), Some(Reason::CaExpiresSoon));
        assert_eq!(at(start() + lives().ca), Some(Reason::CaExpired));
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let near_the_end = start() + lives().ca - DAY;
        let data = issue_leaf(&fresh(), &names(), lives(), near_the_end).unwrap();
        let end = |pem: &Option<Vec<u8>>| validity(pem.as_ref().unwrap()).unwrap().1;
        assert_eq!(end(&data.tls_crt), end(&data.ca_crt));
    }

    #[test]
    fn a_leaf_that_outlives_its_authority_is_noticed() {
        let mut data = fresh();
        let text = |entry: &Option<Vec<u8>>| String::from_utf8(entry.clone().unwrap()).unwrap();
        let ca_key = KeyPair::from_pem(&text(&data.ca_key)).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&text(&data.ca_crt), ca_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let calendar = |time: Timestamp| time::OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_before = calendar(start());
        params.not_after = calendar(start() + lives().ca + DAY);
        data.tls_crt = Some(params.signed_by(&key, &issuer).unwrap().pem().into_bytes());
        data.tls_key = Some(key.serialize_pem().into_bytes());
        assert_eq!(needs_new(&data, &names(), start()), Some(Reason::LeafOutlivesCa));
    }

    /// C1: a clock that jumps a week at a time through ten years never meets an expired certificate, when what
    /// [`needs_new`] asks for is done.
    #[test]
    fn ten_years_pass_without_a_gap() {
        let mut data = fresh();
        let mut now = start();
        let (mut leaves, mut authorities) = (0, 0);
        while now < start() + 11 * 365 * DAY {
            match needs_new(&data, &names(), now) {
                None => {}
                Some(reason @ (Reason::LeafExpiresSoon | Reason::CaExpiresSoon)) => {
                    data = match reason.scope() {
                        Scope::Leaf => issue_leaf(&data, &names(), lives(), now),
                        Scope::Authority => issue_all(&names(), lives(), now),
                    }
                    .unwrap();
                    leaves += u32::from(reason.scope() == Scope::Leaf);
                    authorities += u32::from(reason.scope() == Scope::Authority);
                    assert_eq!(needs_new(&data, &names(), now), None);
                }
                Some(reason) => panic!("{now}: {reason}"),
            }
            now += 7 * DAY;
        }
        assert_eq!(authorities, 1);
        assert!((60..75).contains(&leaves), "{leaves}");
    }

    #[test]
    fn only_what_clients_trust_by_is_a_matter_of_the_authority() {
        assert_eq!(Reason::Missing(CA_KEY).scope(), Scope::Authority);
        assert_eq!(Reason::Missing(TLS_KEY).scope(), Scope::Leaf);
        assert_eq!(Reason::CaExpiresSoon.scope(), Scope::Authority);
        assert_eq!(Reason::WrongNames.scope(), Scope::Leaf);
    }
}
