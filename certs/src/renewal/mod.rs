//! Whether a Secret's certificates must be renewed or cannot be served: pure functions of the Secret, the names and the time.
//!
//! Imports the certificate types. Called by `source`.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;

use crate::{
    problem::CertificateProblem,
    secret::{CA_CRT, CA_KEY, SecretData},
    serving_certificate::ServingCertificate,
    x509::{CertificateChain, San, Validity},
};

/// A certificate is renewed when less than one part in this many of its life is left; an authority so early that it shortens no
/// leaf.
const RENEW_PART: i128 = 3;

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

/// The certificate in `secret`, which another component provides, unless it has a [`serving_problem`].
pub(crate) fn check_provided(
    secret: &SecretData,
    names: &[San],
    now: Timestamp,
) -> Result<ServingCertificate, CertificateProblem> {
    let certificate = ServingCertificate::try_from(secret)?;
    check_authority_time(certificate.ca, now)?;
    check_leaf_time(certificate.chain.validity(), now)?;
    verify(&certificate.chain, certificate.bundle.certificates(), names, now)?;
    Ok(certificate)
}

fn check_issued(secret: &SecretData, names: &[San], now: Timestamp) -> Result<(), CertificateProblem> {
    let ca = secret.ca_crt.as_ref().ok_or(CertificateProblem::Missing(CA_CRT))?;
    let ca = CertificateChain::from_pem(ca).ok_or(CertificateProblem::Unreadable(CA_CRT))?;
    let ca_key = secret.ca_key.as_ref().ok_or(CertificateProblem::Missing(CA_KEY))?;
    let ca_key = std::str::from_utf8(ca_key)
        .ok()
        .and_then(|pem| KeyPair::from_pem(pem).ok());
    let ca_key = ca_key.ok_or(CertificateProblem::Unreadable(CA_KEY))?;
    if !ca.is_ca {
        return Err(CertificateProblem::NotAnAuthority);
    }
    if ca_key.subject_public_key_info() != ca.public_key {
        return Err(CertificateProblem::CaKeyMismatch);
    }
    check_authority_time(ca.validity(), now)?;
    if ca.validity().is_nearly_over(now, RENEW_PART) {
        return Err(CertificateProblem::CaExpiresSoon);
    }

    let leaf = ServingCertificate::try_from(secret)?.chain;
    check_leaf_time(leaf.validity(), now)?;
    if leaf.validity().is_nearly_over(now, RENEW_PART) {
        return Err(CertificateProblem::LeafExpiresSoon);
    }
    if leaf.validity().until > ca.validity().until {
        return Err(CertificateProblem::LeafOutlivesCa);
    }
    // The first authority signs; the others are earlier ones.
    verify(&leaf, ca.certificates.get(..1).unwrap_or_default(), names, now)
}

fn check_authority_time(authority: Validity, now: Timestamp) -> Result<(), CertificateProblem> {
    match () {
        () if now < authority.from => Err(CertificateProblem::CaNotYetValid),
        () if now >= authority.until => Err(CertificateProblem::CaExpired),
        () => Ok(()),
    }
}

fn check_leaf_time(leaf: Validity, now: Timestamp) -> Result<(), CertificateProblem> {
    match () {
        () if now < leaf.from => Err(CertificateProblem::LeafNotYetValid),
        () if now >= leaf.until => Err(CertificateProblem::LeafExpired),
        () => Ok(()),
    }
}

/// Verifies as a TLS client does: the chain first, then each name.
fn verify(
    chain: &CertificateChain,
    authorities: &[CertificateDer<'static>],
    names: &[San],
    now: Timestamp,
) -> Result<(), CertificateProblem> {
    if !chain.is_signed_by(authorities.iter().cloned(), now) {
        Err(CertificateProblem::LeafNotTrusted)
    } else if !names.iter().all(|name| chain.is_for(name)) {
        Err(CertificateProblem::WrongNames)
    } else {
        Ok(())
    }
}
