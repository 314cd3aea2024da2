//! Issues authorities and serving certificates: ECDSA P-256, because it keeps handshakes cheap.
//!
//! Imports the certificate types. Called by `source`.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

use crate::{
    secret::SecretData,
    x509::{San, Validity},
};

/// How long before its issue a certificate is valid, for clocks that are behind; at most a tenth of its life.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// The lifetimes of issued certificates. They are renewed when a third is left ([`crate::renewal_problem`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// The lifetime of an authority.
    pub ca: SignedDuration,
    /// The lifetime of a serving certificate, unless its authority expires sooner.
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
    /// The time is out of the range of a certificate.
    #[error("no certificate can state the time {0}")]
    Time(Timestamp),
    /// The authority in the Secret cannot sign.
    #[error("the authority is unusable")]
    Authority,
}

/// Issues an authority, and a serving certificate for `names` under it.
pub fn issue_all(names: &[San], lifetimes: Lifetimes, now: Timestamp) -> Result<SecretData, IssueError> {
    let key = KeyPair::generate()?;
    let mut params = params("taskgate-ca", &[], now, lifetimes.ca, None)?;
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

/// Issues a serving certificate for `names` under the authority in `data`, the first one in its bundle. It never outlives that
/// authority.
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
    let authority = Validity::of(ca_crt.as_bytes()).ok_or(IssueError::Authority)?;
    let issuer = Issuer::from_ca_cert_pem(&ca_crt, KeyPair::from_pem(&ca_key)?)?;

    let key = KeyPair::generate()?;
    let mut params = params("taskgate", names, now, lifetimes.leaf, Some(authority.until))?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(SecretData {
        tls_crt: Some(certificate.pem().into_bytes()),
        tls_key: Some(key.serialize_pem().into_bytes()),
        ..data.clone()
    })
}

fn params(
    common_name: &str,
    names: &[San],
    now: Timestamp,
    life: SignedDuration,
    latest: Option<Timestamp>,
) -> Result<CertificateParams, IssueError> {
    let names: Vec<_> = names.iter().map(San::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = calendar(add(now, -SKEW.min(life / 10))?)?;
    let until = add(now, life)?;
    params.not_after = calendar(latest.map_or(until, |latest| latest.min(until)))?;
    Ok(params)
}

fn add(time: Timestamp, span: SignedDuration) -> Result<Timestamp, IssueError> {
    time.checked_add(span).map_err(|_| IssueError::Time(time))
}

fn calendar(time: Timestamp) -> Result<OffsetDateTime, IssueError> {
    OffsetDateTime::from_unix_timestamp(time.as_second()).map_err(|_| IssueError::Time(time))
}
