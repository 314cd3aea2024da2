use jiff::SignedDuration;

use super::*;
use crate::{
    issue::{Lifetimes, issue_all, issue_leaf},
    secret::{TLS_CRT, TLS_KEY},
};

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

fn new_certificates() -> SecretData {
    issue_all(&names(), lives(), start()).unwrap()
}

#[test]
fn a_new_certificate_is_good_from_the_first_second() {
    assert_eq!(renewal_problem(&new_certificates(), &names(), start()), None);
    assert_eq!(renewal_problem(&new_certificates(), &names(), start() + 20 * DAY), None);
}

#[test]
fn every_problem_is_distinguished() {
    let (good, other) = (new_certificates(), new_certificates());
    let garbage = Some(b"-----BEGIN CERTIFICATE-----\n".to_vec());
    let with = |change: &dyn Fn(&mut SecretData)| {
        let mut data = good.clone();
        change(&mut data);
        data
    };
    // Leaves that were issued at another time than their authority.
    let old_leaf = issue_leaf(&good, &names(), lives(), start() - 85 * DAY).unwrap();
    let late_leaf = issue_leaf(&good, &names(), lives(), start() + 2 * DAY).unwrap();
    let table = [
        (with(&|d| d.ca_crt = None), CertificateProblem::Missing(CA_CRT)),
        (with(&|d| d.ca_key = None), CertificateProblem::Missing(CA_KEY)),
        (with(&|d| d.tls_crt = None), CertificateProblem::Missing(TLS_CRT)),
        (with(&|d| d.tls_key = None), CertificateProblem::Missing(TLS_KEY)),
        (
            with(&|d| d.ca_crt = garbage.clone()),
            CertificateProblem::Unreadable(CA_CRT),
        ),
        (
            with(&|d| d.ca_key = Some(vec![0xff])),
            CertificateProblem::Unreadable(CA_KEY),
        ),
        (
            with(&|d| d.tls_crt = Some(Vec::new())),
            CertificateProblem::Unreadable(TLS_CRT),
        ),
        (
            with(&|d| d.tls_key = garbage.clone()),
            CertificateProblem::Unreadable(TLS_KEY),
        ),
        (
            with(&|d| d.ca_crt.clone_from(&good.tls_crt)),
            CertificateProblem::NotAnAuthority,
        ),
        (
            with(&|d| d.ca_key.clone_from(&other.ca_key)),
            CertificateProblem::CaKeyMismatch,
        ),
        (
            with(&|d| d.tls_key.clone_from(&other.tls_key)),
            CertificateProblem::LeafKeyMismatch,
        ),
        (
            with(&|d| {
                d.tls_crt.clone_from(&other.tls_crt);
                d.tls_key.clone_from(&other.tls_key);
            }),
            CertificateProblem::LeafNotTrusted,
        ),
        (old_leaf, CertificateProblem::LeafExpiresSoon),
        (late_leaf, CertificateProblem::LeafNotYetValid),
        (
            issue_leaf(&good, &names()[..1], lives(), start()).unwrap(),
            CertificateProblem::WrongNames,
        ),
    ];
    for (data, reason) in table {
        assert_eq!(renewal_problem(&data, &names(), start()), Some(reason), "{reason}");
    }
}

#[test]
fn the_authority_is_checked_before_the_leaf() {
    let data = new_certificates();
    let at = |time| renewal_problem(&data, &names(), time);
    assert_eq!(at(start() - DAY), Some(CertificateProblem::CaNotYetValid));
    assert_eq!(at(start() + 2 * lives().leaf), Some(CertificateProblem::LeafExpired));
    assert_eq!(
        at(start() + lives().ca * 2 / 3 + DAY),
        Some(CertificateProblem::CaExpiresSoon)
    );
    assert_eq!(at(start() + lives().ca), Some(CertificateProblem::CaExpired));
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let near_the_end = start() + lives().ca - DAY;
    let data = issue_leaf(&new_certificates(), &names(), lives(), near_the_end).unwrap();
    let end = |pem: &Option<Vec<u8>>| Validity::of(pem.as_ref().unwrap()).unwrap().until;
    assert_eq!(end(&data.tls_crt), end(&data.ca_crt));
}

#[test]
fn a_leaf_that_outlives_its_authority_is_noticed() {
    let mut data = new_certificates();
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
    assert_eq!(
        renewal_problem(&data, &names(), start()),
        Some(CertificateProblem::LeafOutlivesCa)
    );
}

/// With a weekly check through ten years, no certificate expires before it is renewed.
#[test]
fn ten_years_pass_without_a_gap() {
    let mut data = new_certificates();
    let mut now = start();
    let (mut leaves, mut authorities) = (0, 0);
    while now < start() + 11 * 365 * DAY {
        match renewal_problem(&data, &names(), now) {
            None => {}
            Some(reason @ (CertificateProblem::LeafExpiresSoon | CertificateProblem::CaExpiresSoon)) => {
                data = if reason.is_of_authority() {
                    issue_all(&names(), lives(), now).unwrap()
                } else {
                    issue_leaf(&data, &names(), lives(), now).unwrap()
                };
                leaves += u32::from(!reason.is_of_authority());
                authorities += u32::from(reason.is_of_authority());
                assert_eq!(renewal_problem(&data, &names(), now), None);
            }
            Some(reason) => panic!("{now}: {reason}"),
        }
        now += 7 * DAY;
    }
    assert_eq!(authorities, 1);
    assert!((60..75).contains(&leaves), "{leaves}");
}

/// After a clock jump, certificates are checked against the new time, and new ones are good at once. After the clock is corrected,
/// certificates from the wrong time are distinguished from those that only seemed old.
#[test]
fn a_clock_jump_and_its_correction_are_both_noticed() {
    let (lives, hour) = (lives(), SignedDuration::from_hours(1));
    let table = [
        // how far, why it is replaced then, why again once the clock is right
        (59 * DAY, None, None),
        (
            61 * DAY,
            Some(CertificateProblem::LeafExpiresSoon),
            Some(CertificateProblem::LeafNotYetValid),
        ),
        (
            lives.leaf,
            Some(CertificateProblem::LeafExpired),
            Some(CertificateProblem::LeafNotYetValid),
        ),
        (
            lives.ca * 2 / 3 + DAY,
            Some(CertificateProblem::CaExpiresSoon),
            Some(CertificateProblem::CaNotYetValid),
        ),
        (
            lives.ca,
            Some(CertificateProblem::CaExpired),
            Some(CertificateProblem::CaNotYetValid),
        ),
        // Clocks may differ by an hour.
        (-hour, None, None),
        (-2 * hour, Some(CertificateProblem::CaNotYetValid), None),
        (
            -61 * DAY,
            Some(CertificateProblem::CaNotYetValid),
            Some(CertificateProblem::LeafExpiresSoon),
        ),
        (
            -lives.leaf,
            Some(CertificateProblem::CaNotYetValid),
            Some(CertificateProblem::LeafExpired),
        ),
        (
            -lives.ca,
            Some(CertificateProblem::CaNotYetValid),
            Some(CertificateProblem::CaExpired),
        ),
    ];
    for (jump, there, back) in table {
        let (data, now) = (new_certificates(), start() + jump);
        let found = renewal_problem(&data, &names(), now);
        assert_eq!(found, there, "after {jump}");
        let renewed = match found.map(CertificateProblem::is_of_authority) {
            None => data,
            Some(false) => issue_leaf(&data, &names(), lives, now).unwrap(),
            Some(true) => issue_all(&names(), lives, now).unwrap(),
        };
        assert_eq!(renewal_problem(&renewed, &names(), now), None, "renewed after {jump}");
        assert_eq!(renewal_problem(&renewed, &names(), start()), back, "back after {jump}");
    }
}

#[test]
fn only_problems_of_the_authority_replace_the_authority() {
    assert!(CertificateProblem::Missing(CA_KEY).is_of_authority());
    assert!(!CertificateProblem::Missing(TLS_KEY).is_of_authority());
    assert!(CertificateProblem::CaExpiresSoon.is_of_authority());
    assert!(!CertificateProblem::WrongNames.is_of_authority());
}

/// A leaf with an RSA key of 1024 bits, which ring does not read.
#[test]
fn a_weak_key_is_named() {
    let mut data = new_certificates();
    data.tls_crt = Some(include_bytes!("../../../e2e/tests/certs/rsa1024.crt").to_vec());
    data.tls_key = Some(include_bytes!("../../../e2e/tests/certs/rsa1024.key").to_vec());
    assert_eq!(
        serving_problem(&data, &names(), start()),
        Some(CertificateProblem::WeakKey)
    );
}

/// Text that is no certificate behind the good ones: the authority is replaced, since its bundle cannot be published.
#[test]
fn an_unreadable_bundle_is_noticed() {
    let mut data = new_certificates();
    let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    data.ca_crt.as_mut().unwrap().extend_from_slice(garbage);
    let problem = renewal_problem(&data, &names(), start()).unwrap();
    assert_eq!(problem, CertificateProblem::Unreadable(CA_CRT));
    assert!(problem.is_of_authority());
}
