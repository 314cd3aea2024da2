//! Makes authorities and serving certificates: ECDSA P-256, because every connection that is not kept pays a handshake.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::ServerName;
use time::OffsetDateTime;

use crate::{San, SecretData, x509::validity};

/// How far certificates are valid into the past, for clocks that are behind; never more than a tenth of their life.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// How long what is issued lives. It is replaced when a third of that is left ([`crate::needs_new()`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an authority.
    pub ca: SignedDuration,
    /// Of a serving certificate, unless its authority ends sooner.
    pub leaf: SignedDuration,
}

/// Ten years, and 90 days.
impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            ca: SignedDuration::from_hours(3650 * 24),
            leaf: SignedDuration::from_hours(90 * 24),
        }
    }
}

/// A certificate cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Key generation, encoding or signing failed.
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The time lies outside what a certificate can state.
    #[error("no certificate can state the time {0}")]
    Time(Timestamp),
    /// The authority in the Secret cannot sign.
    #[error("the authority is unusable")]
    Authority,
}

/// Makes an authority, and a serving certificate for `names` under it.
pub fn issue_all(names: &[San], lifetimes: Lifetimes, now: Timestamp) -> Result<SecretData, IssueError> {
    let key = KeyPair::generate()?;
    let mut params = params("taskgate-ca", now, lifetimes.ca, None)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    let authority = SecretData {
        ca_crt: Some(certificate.pem().into_bytes()),
        ca_key: Some(key.serialize_pem().into_bytes()),
        ..SecretData::default()
    };
    issue_leaf(&authority, names, lifetimes, now)
}

/// Makes a serving certificate for `names` under the authority that `data` holds, the first one in its bundle. It never
/// outlives that authority.
pub fn issue_leaf(
    data: &SecretData,
    names: &[San],
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Result<SecretData, IssueError> {
    let text = |entry: &Option<Vec<u8>>| entry.clone().and_then(|bytes| String::from_utf8(bytes).ok());
    let (Some(ca_crt), Some(ca_key)) = (text(&data.ca_crt), text(&data.ca_key)) else {
        return Err(IssueError::Authority);
    };
    let (_, ca_not_after) = validity(ca_crt.as_bytes()).ok_or(IssueError::Authority)?;
    let issuer = Issuer::from_ca_cert_pem(&ca_crt, KeyPair::from_pem(&ca_key)?)?;

    let key = KeyPair::generate()?;
    let mut params = params("taskgate", now, lifetimes.leaf, Some(ca_not_after))?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = names.iter().map(alternative_name).collect::<Result<_, _>>()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(SecretData {
        tls_crt: Some(certificate.pem().into_bytes()),
        tls_key: Some(key.serialize_pem().into_bytes()),
        ..data.clone()
    })
}

fn params(
    common_name: &str,
    now: Timestamp,
    life: SignedDuration,
    latest: Option<Timestamp>,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = calendar(add(now, -SKEW.min(life / 10))?)?;
    let until = add(now, life)?;
    params.not_after = calendar(latest.map_or(until, |latest| latest.min(until)))?;
    Ok(params)
}

fn alternative_name(name: &San) -> Result<SanType, IssueError> {
    Ok(match name.server_name() {
        ServerName::IpAddress(address) => SanType::IpAddress(IpAddr::from(*address)),
        _ => SanType::DnsName(name.as_str().into_owned().try_into()?),
    })
}

fn add(time: Timestamp, span: SignedDuration) -> Result<Timestamp, IssueError> {
    time.checked_add(span).map_err(|_| IssueError::Time(time))
}

fn calendar(time: Timestamp) -> Result<OffsetDateTime, IssueError> {
    OffsetDateTime::from_unix_timestamp(time.as_second()).map_err(|_| IssueError::Time(time))
}
