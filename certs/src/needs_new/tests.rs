use jiff::SignedDuration;

use super::*;
use crate::{Lifetimes, issue_all, issue_leaf, x509::validity};

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

/// C4: whatever a clock jumps to, what is there is judged by the new time; what is made then is good at once. Once the clock is
/// right again, what was made in the wrong time is told apart from what only seemed old.
#[test]
fn a_clock_that_jumps_there_and_back_finds_out_both_times() {
    let (lives, hour) = (lives(), SignedDuration::from_hours(1));
    let table = [
        // how far, why it is replaced then, why again once the clock is right
        (59 * DAY, None, None),
        (61 * DAY, Some(Reason::LeafExpiresSoon), Some(Reason::LeafNotYetValid)),
        (lives.leaf, Some(Reason::LeafExpired), Some(Reason::LeafNotYetValid)),
        (
            lives.ca * 2 / 3 + DAY,
            Some(Reason::CaExpiresSoon),
            Some(Reason::CaNotYetValid),
        ),
        (lives.ca, Some(Reason::CaExpired), Some(Reason::CaNotYetValid)),
        // Clocks may differ by an hour; whatever was made earlier than now is good now, while it lasts.
        (-hour, None, None),
        (-2 * hour, Some(Reason::CaNotYetValid), None),
        (-61 * DAY, Some(Reason::CaNotYetValid), Some(Reason::LeafExpiresSoon)),
        (-lives.leaf, Some(Reason::CaNotYetValid), Some(Reason::LeafExpired)),
        (-lives.ca, Some(Reason::CaNotYetValid), Some(Reason::CaExpired)),
    ];
    for (jump, there, back) in table {
        let (data, now) = (fresh(), start() + jump);
        let found = needs_new(&data, &names(), now);
        assert_eq!(found, there, "after {jump}");
        let mended = match found.map(Reason::scope) {
            None => data,
            Some(Scope::Leaf) => issue_leaf(&data, &names(), lives, now).unwrap(),
            Some(Scope::Authority) => issue_all(&names(), lives, now).unwrap(),
        };
        assert_eq!(needs_new(&mended, &names(), now), None, "mended after {jump}");
        assert_eq!(needs_new(&mended, &names(), start()), back, "back after {jump}");
    }
}

#[test]
fn only_what_clients_trust_by_is_a_matter_of_the_authority() {
    assert_eq!(Reason::Missing(CA_KEY).scope(), Scope::Authority);
    assert_eq!(Reason::Missing(TLS_KEY).scope(), Scope::Leaf);
    assert_eq!(Reason::CaExpiresSoon.scope(), Scope::Authority);
    assert_eq!(Reason::WrongNames.scope(), Scope::Leaf);
}
