use super::*;
use crate::{
    issue::{Lifetimes, issue_all},
    problem::CertificateProblem,
    secret::TLS_CRT,
};

fn new_certificate(now: Timestamp) -> ServingCertificate {
    let data = issue_all(&["a.b".parse().unwrap()], Lifetimes::default(), now).unwrap();
    ServingCertificate::try_from(&data).unwrap()
}

#[test]
fn the_last_good_certificate_stays_after_a_problem_and_the_next_good_one_clears_it() {
    let now = Timestamp::now();
    let resolver = Resolver::new();
    assert!(!resolver.health().is_valid_at(now));
    resolver.offer(new_certificate(now));
    let before = resolver.health();
    assert!(before.is_valid_at(now));
    assert!(!before.is_valid_at(before.leaf_not_after.unwrap()));

    resolver.report_problem(&CertificateProblem::Unreadable(TLS_CRT));
    let after = resolver.health();
    assert_eq!(after.leaf_not_after, before.leaf_not_after);
    assert_eq!(after.last_error.as_deref(), Some("tls.crt does not parse"));

    resolver.offer(new_certificate(now));
    let waiting = resolver.health();
    assert_eq!(
        (waiting.last_error, waiting.waiting),
        (None, true),
        "the API server is not known to trust it"
    );
    assert_eq!(waiting.leaf_not_after, before.leaf_not_after);
}

#[test]
fn a_subscriber_of_the_bundle_is_notified_only_of_a_change() {
    let resolver = Resolver::new();
    let mut bundle = resolver.bundle();
    let certificate = new_certificate(Timestamp::now());
    resolver.offer(certificate.clone());
    assert!(bundle.has_changed().unwrap());
    assert_eq!(bundle.borrow_and_update().as_ref(), Some(certificate.bundle()));
    resolver.offer(certificate);
    assert!(!bundle.has_changed().unwrap());
}

/// The bundle of a waiting certificate is published before the certificate is served: otherwise no API server would ever trust it.
#[tokio::test(start_paused = true)]
async fn a_waiting_certificate_is_published_first_and_served_once_it_is_trusted() {
    let now = Timestamp::now();
    let (old, new) = (new_certificate(now), new_certificate(now));
    let resolver = Resolver::new();
    resolver.offer(old.clone());
    resolver.offer(new.clone());
    assert!(resolver.served().unwrap().is_same_as(&old));
    assert_eq!(resolver.bundle().borrow().as_ref(), Some(new.bundle()));
    assert!(!resolver.is_trusted(WebhookConfigurationKind::Mutating));

    let both = old.bundle().with(new.bundle().pem(), now).pem().to_vec();
    for kind in [WebhookConfigurationKind::Mutating, WebhookConfigurationKind::Validating] {
        resolver.record_published(kind, PublishedBundles::Bundles([both.clone()].into()));
    }
    assert!(resolver.is_trusted(WebhookConfigurationKind::Mutating));
    assert!(resolver.served().unwrap().is_same_as(&old));
    let follow = tokio::time::timeout(Duration::from_secs(30), resolver.follow());
    assert!(follow.await.is_err());
    assert!(resolver.served().unwrap().is_same_as(&new));
}
