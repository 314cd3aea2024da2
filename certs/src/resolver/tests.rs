use super::*;
use crate::{Lifetimes, MaterialError, issue_all};

fn material(now: Timestamp) -> Material {
    let data = issue_all(&["a.b".parse().unwrap()], Lifetimes::default(), now).unwrap();
    Material::try_from(&data).unwrap()
}

#[test]
fn the_last_good_certificate_outlives_a_problem_and_the_next_good_one_clears_it() {
    let now = Timestamp::now();
    let resolver = Resolver::new();
    assert!(!resolver.health().is_valid_at(now));
    resolver.offer(material(now));
    let before = resolver.health();
    assert!(before.is_valid_at(now));
    assert!(!before.is_valid_at(before.leaf_not_after.unwrap()));

    resolver.report(&MaterialError::Chain);
    let after = resolver.health();
    assert_eq!(after.leaf_not_after, before.leaf_not_after);
    assert_eq!(
        after.last_error.as_deref(),
        Some("the serving certificate does not parse")
    );

    resolver.offer(material(now));
    let waiting = resolver.health();
    assert_eq!(
        (waiting.last_error, waiting.waiting),
        (None, true),
        "nobody is known to trust it"
    );
    assert_eq!(waiting.leaf_not_after, before.leaf_not_after);
}

#[test]
fn whoever_waits_for_the_bundle_is_woken_only_by_a_change() {
    let resolver = Resolver::new();
    let mut bundle = resolver.bundle();
    let material = material(Timestamp::now());
    resolver.offer(material.clone());
    assert!(bundle.has_changed().unwrap());
    assert_eq!(bundle.borrow_and_update().as_ref(), Some(material.bundle()));
    resolver.offer(material);
    assert!(!bundle.has_changed().unwrap());
}

/// The bundle of what waits is published although nothing of it is served yet: else nobody would ever trust it.
#[tokio::test(start_paused = true)]
async fn what_waits_is_published_first_and_served_once_it_is_trusted() {
    let now = Timestamp::now();
    let (old, new) = (material(now), material(now));
    let resolver = Resolver::new();
    resolver.offer(old.clone());
    resolver.offer(new.clone());
    assert!(resolver.served().unwrap().is_same_as(&old));
    assert_eq!(resolver.bundle().borrow().as_ref(), Some(new.bundle()));
    assert!(!resolver.is_trusted(Target::Mutating));

    let both = old.bundle().with(new.bundle().pem(), now).pem().to_vec();
    for target in [Target::Mutating, Target::Validating] {
        resolver.published(target, Published::Bundles([both.clone()].into()));
    }
    assert!(resolver.is_trusted(Target::Mutating));
    assert!(resolver.served().unwrap().is_same_as(&old));
    let follow = tokio::time::timeout(Duration::from_secs(30), resolver.follow());
    assert!(follow.await.is_err());
    assert!(resolver.served().unwrap().is_same_as(&new));
}
