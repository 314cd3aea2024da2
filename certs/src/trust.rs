//! When a server may go over to another certificate: once the API server is known to trust it (C2).

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::{Material, Target};

/// How long an API server may take to notice what is published. Each of them follows the webhook configurations on its own.
const SETTLE: SignedDuration = SignedDuration::from_secs(10);

/// What one webhook configuration tells the API server to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Published {
    /// Not seen yet.
    #[default]
    Unknown,
    /// There is no such configuration: nobody calls for its sake.
    Absent,
    /// The bundles of its webhooks, PEM, each once; empty for a webhook without.
    Bundles(Arc<[Vec<u8>]>),
}

impl Published {
    /// Whether every webhook of the configuration trusts `material`. One that does not exist trusts everything.
    fn trusts(&self, material: &Material, now: Timestamp) -> bool {
        match self {
            Self::Unknown => false,
            Self::Absent => true,
            Self::Bundles(bundles) => bundles.iter().all(|bundle| material.is_trusted_by(bundle, now)),
        }
    }
}

/// What both configurations tell, and since when they tell just that.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    published: [Published; 2],
    since: Instant,
}

/// When to serve another certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// At once.
    Now,
    /// Then, if nothing changes until then.
    At(Instant),
    /// Not as things are.
    Wait,
}

impl Trust {
    pub(crate) fn new() -> Self {
        Self {
            published: [Published::Unknown, Published::Unknown],
            since: Instant::now(),
        }
    }

    /// Notes what `target` tells; whether that is news.
    pub(crate) fn note(&mut self, target: Target, published: Published) -> bool {
        let entry = &mut self.published[target as usize];
        let news = *entry != published;
        if news {
            *entry = published;
            self.since = Instant::now();
        }
        news
    }

    /// Whether it was seen what `target` tells.
    pub(crate) fn is_known(&self, target: Target) -> bool {
        self.published[target as usize] != Published::Unknown
    }

    /// Whether the configuration that exists as `target` trusts `served`.
    pub(crate) fn trusts(&self, target: Target, served: &Material, now: Timestamp) -> bool {
        self.published[target as usize].trusts(served, now)
    }

    /// When whoever serves `served` may serve `next`.
    pub(crate) fn turn(&self, served: Option<&Material>, next: &Material, now: Timestamp) -> Turn {
        let all_trust = |material| self.published.iter().all(|published| published.trusts(material, now));
        let Some(served) = served.filter(|served| served.is_valid_at(now)) else {
            // Nothing is lost.
            return Turn::Now;
        };
        if self.published.iter().all(|published| *published == Published::Absent) {
            return Turn::Now;
        }
        if !all_trust(next) {
            return Turn::Wait;
        }
        // Somebody replaced the bundle: every call fails until we follow.
        if !all_trust(served) {
            return Turn::Now;
        }
        // What is short-lived has less time: a test, mostly.
        let settle = SETTLE.min(next.ca_life() / 20);
        let at = self.since + Duration::try_from(settle).unwrap_or_default();
        if Instant::now() >= at { Turn::Now } else { Turn::At(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lifetimes, SecretData, issue_all, issue_leaf};

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn issued() -> SecretData {
        issue_all(&["a.b".parse().unwrap()], Lifetimes::default(), start()).unwrap()
    }

    fn material(data: &SecretData) -> Material {
        Material::try_from(data).unwrap()
    }

    fn bundles(of: &[&SecretData]) -> Published {
        let pem: Vec<u8> = of.iter().flat_map(|data| data.ca_crt.clone().unwrap()).collect();
        Published::Bundles([pem].into())
    }

    fn trust(mutating: Published, validating: Published) -> Trust {
        let mut trust = Trust::new();
        trust.note(Target::Mutating, mutating);
        trust.note(Target::Validating, validating);
        trust
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_one_is_served_until_the_new_one_was_trusted_everywhere_for_a_while() {
        let (old, new) = (issued(), issued());
        let (served, next) = (material(&old), material(&new));
        let turn = |trust: &Trust| trust.turn(Some(&served), &next, start());
        let both = bundles(&[&old, &new]);

        assert_eq!(turn(&Trust::new()), Turn::Wait, "nothing is known");
        assert_eq!(turn(&trust(bundles(&[&old]), bundles(&[&old]))), Turn::Wait);
        assert_eq!(turn(&trust(both.clone(), bundles(&[&old]))), Turn::Wait, "one is late");
        assert_eq!(turn(&trust(both.clone(), Published::Unknown)), Turn::Wait);

        let settling = trust(both.clone(), Published::Absent);
        assert!(matches!(turn(&settling), Turn::At(_)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(turn(&settling), Turn::Now);
        let mut changed = settling;
        assert!(!changed.note(Target::Mutating, both));
        assert_eq!(turn(&changed), Turn::Now, "no news");
        changed.note(Target::Validating, bundles(&[&new, &old]));
        assert!(matches!(turn(&changed), Turn::At(_)), "it starts over");
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_wait_where_waiting_saves_no_call() {
        let (old, new) = (issued(), issued());
        let (served, next) = (material(&old), material(&new));
        let now = start();
        assert_eq!(Trust::new().turn(None, &next, now), Turn::Now, "nothing is served");
        let expired = now + Lifetimes::default().leaf;
        assert_eq!(Trust::new().turn(Some(&served), &next, expired), Turn::Now);
        let nobody_calls = trust(Published::Absent, Published::Absent);
        assert_eq!(nobody_calls.turn(Some(&served), &next, now), Turn::Now);
        let replaced = trust(bundles(&[&new]), bundles(&[&old, &new]));
        assert_eq!(replaced.turn(Some(&served), &next, now), Turn::Now);
    }

    #[tokio::test(start_paused = true)]
    async fn another_leaf_of_a_trusted_authority_is_served_at_once() {
        let old = issued();
        let renewed = issue_leaf(&old, &["a.b".parse().unwrap()], Lifetimes::default(), start()).unwrap();
        let trust = trust(bundles(&[&old]), bundles(&[&old]));
        tokio::time::advance(Duration::from_mins(1)).await;
        let turn = trust.turn(Some(&material(&old)), &material(&renewed), start());
        assert_eq!(turn, Turn::Now);
    }
}
