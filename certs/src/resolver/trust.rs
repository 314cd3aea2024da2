//! When the server may switch to another certificate: once the API server trusts it (C2).

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::serving_certificate::ServingCertificate;

/// How long an API server may take to apply a published bundle. Each one watches the webhook configurations separately.
const APPLY_TIME: SignedDuration = SignedDuration::from_secs(10);

/// How long an API server may take to apply a changed bundle. No replica is ready before.
const APPLIED_WITHIN: Duration = Duration::from_secs(1);

/// The kind of a webhook configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookConfigurationKind {
    /// The `MutatingWebhookConfiguration`.
    Mutating,
    /// The `ValidatingWebhookConfiguration`.
    Validating,
}

impl fmt::Display for WebhookConfigurationKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mutating => "MutatingWebhookConfiguration",
            Self::Validating => "ValidatingWebhookConfiguration",
        })
    }
}

/// The CA bundles that one webhook configuration publishes to the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum PublishedBundles {
    /// Not read yet.
    #[default]
    Unknown,
    /// The configuration does not exist, so that no API server calls.
    Absent,
    /// The bundles of its webhooks, PEM, each once; empty for a webhook without.
    Bundles(Arc<[Vec<u8>]>),
}

impl PublishedBundles {
    /// Whether every webhook of the configuration trusts `certificate`. One that does not exist trusts everything.
    fn trusts(&self, certificate: &ServingCertificate, now: Timestamp) -> bool {
        match self {
            Self::Unknown => false,
            Self::Absent => true,
            Self::Bundles(bundles) => bundles.iter().all(|bundle| certificate.is_trusted_by(bundle, now)),
        }
    }
}

/// The bundles of both configurations, and when they last changed.
#[derive(Clone, Debug)]
pub(crate) struct ApiServerTrust {
    published: [PublishedBundles; 2],
    changed_at: Instant,
    /// When a configuration that did not trust the served certificate began to.
    trusted_at: Option<Instant>,
}

/// When to switch to another certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SwitchTime {
    /// At once.
    Now,
    /// At that time, if nothing changes until then.
    At(Instant),
    /// Not while the bundles stay as they are.
    Wait,
}

impl ApiServerTrust {
    pub(crate) fn new() -> Self {
        Self {
            published: [PublishedBundles::Unknown, PublishedBundles::Unknown],
            changed_at: Instant::now(),
            trusted_at: None,
        }
    }

    /// Records the bundles of the configuration `kind` while `served` is served; whether they changed.
    pub(crate) fn record(
        &mut self,
        kind: WebhookConfigurationKind,
        published: PublishedBundles,
        served: Option<&ServingCertificate>,
    ) -> bool {
        let entry = &mut self.published[kind as usize];
        if *entry == published {
            return false;
        }
        let now = Timestamp::now();
        let trusts = |bundles: &PublishedBundles| served.is_some_and(|served| bundles.trusts(served, now));
        self.changed_at = Instant::now();
        if *entry != PublishedBundles::Unknown && !trusts(entry) && trusts(&published) {
            self.trusted_at = Some(self.changed_at);
        }
        *entry = published;
        true
    }

    /// Whether the configuration `kind` trusts `served`, and the API server has had time to apply that.
    pub(crate) fn trusts(&self, kind: WebhookConfigurationKind, served: &ServingCertificate, now: Timestamp) -> bool {
        let applied = self.trusted_at.is_none_or(|at| at.elapsed() >= APPLIED_WITHIN);
        applied && self.published[kind as usize].trusts(served, now)
    }

    /// When a server of `served` may switch to `next`.
    pub(crate) fn switch_time(
        &self,
        served: Option<&ServingCertificate>,
        next: &ServingCertificate,
        now: Timestamp,
    ) -> SwitchTime {
        let mut published = self.published.iter();
        let Some(served) = served.filter(|served| served.is_valid_at(now)) else {
            // There is no valid certificate to keep.
            return SwitchTime::Now;
        };
        if published.clone().all(|bundles| *bundles == PublishedBundles::Absent) {
            return SwitchTime::Now;
        }
        if !published.clone().all(|bundles| bundles.trusts(next, now)) {
            return SwitchTime::Wait;
        }
        // The bundle was replaced: every call fails until the server switches.
        if !published.all(|bundles| bundles.trusts(served, now)) {
            return SwitchTime::Now;
        }
        // Short-lived certificates, mostly in tests, have less time.
        let apply_time = APPLY_TIME.min(next.ca_lifetime() / 20);
        let at = self.changed_at + Duration::try_from(apply_time).unwrap_or_default();
        if Instant::now() >= at {
            SwitchTime::Now
        } else {
            SwitchTime::At(at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        issue::{Lifetimes, issue_all, issue_leaf},
        secret::SecretData,
    };

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn issued() -> SecretData {
        issue_all(&["a.b".parse().unwrap()], Lifetimes::default(), start()).unwrap()
    }

    fn certificate(data: &SecretData) -> ServingCertificate {
        ServingCertificate::try_from(data).unwrap()
    }

    fn bundles(of: &[&SecretData]) -> PublishedBundles {
        let pem: Vec<u8> = of.iter().flat_map(|data| data.ca_crt.clone().unwrap()).collect();
        PublishedBundles::Bundles([pem].into())
    }

    fn trust(mutating: PublishedBundles, validating: PublishedBundles) -> ApiServerTrust {
        let mut trust = ApiServerTrust::new();
        trust.record(WebhookConfigurationKind::Mutating, mutating, None);
        trust.record(WebhookConfigurationKind::Validating, validating, None);
        trust
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_certificate_is_served_until_all_webhooks_have_trusted_the_new_one_for_a_while() {
        let (old, new) = (issued(), issued());
        let (served, next) = (certificate(&old), certificate(&new));
        let switch_time = |trust: &ApiServerTrust| trust.switch_time(Some(&served), &next, start());
        let both = bundles(&[&old, &new]);

        assert_eq!(
            switch_time(&ApiServerTrust::new()),
            SwitchTime::Wait,
            "no configuration was read"
        );
        assert_eq!(
            switch_time(&trust(bundles(&[&old]), bundles(&[&old]))),
            SwitchTime::Wait
        );
        assert_eq!(
            switch_time(&trust(both.clone(), bundles(&[&old]))),
            SwitchTime::Wait,
            "one webhook is late"
        );
        assert_eq!(
            switch_time(&trust(both.clone(), PublishedBundles::Unknown)),
            SwitchTime::Wait
        );

        let settling = trust(both.clone(), PublishedBundles::Absent);
        assert!(matches!(switch_time(&settling), SwitchTime::At(_)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(switch_time(&settling), SwitchTime::Now);
        let mut changed = settling;
        assert!(!changed.record(WebhookConfigurationKind::Mutating, both, None));
        assert_eq!(switch_time(&changed), SwitchTime::Now, "no change");
        changed.record(WebhookConfigurationKind::Validating, bundles(&[&new, &old]), None);
        assert!(matches!(switch_time(&changed), SwitchTime::At(_)), "it starts over");
    }

    #[tokio::test(start_paused = true)]
    async fn it_switches_at_once_where_waiting_saves_no_call() {
        let (old, new) = (issued(), issued());
        let (served, next) = (certificate(&old), certificate(&new));
        let now = start();
        assert_eq!(
            ApiServerTrust::new().switch_time(None, &next, now),
            SwitchTime::Now,
            "nothing is served"
        );
        let expired = now + Lifetimes::default().leaf;
        assert_eq!(
            ApiServerTrust::new().switch_time(Some(&served), &next, expired),
            SwitchTime::Now
        );
        let no_calls = trust(PublishedBundles::Absent, PublishedBundles::Absent);
        assert_eq!(no_calls.switch_time(Some(&served), &next, now), SwitchTime::Now);
        let replaced = trust(bundles(&[&new]), bundles(&[&old, &new]));
        assert_eq!(replaced.switch_time(Some(&served), &next, now), SwitchTime::Now);
    }

    #[tokio::test(start_paused = true)]
    async fn another_leaf_of_a_trusted_authority_is_served_at_once() {
        let old = issued();
        let renewed = issue_leaf(&old, &["a.b".parse().unwrap()], Lifetimes::default(), start()).unwrap();
        let trust = trust(bundles(&[&old]), bundles(&[&old]));
        tokio::time::advance(Duration::from_mins(1)).await;
        let time = trust.switch_time(Some(&certificate(&old)), &certificate(&renewed), start());
        assert_eq!(time, SwitchTime::Now);
    }
}
