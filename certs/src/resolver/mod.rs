//! Hands rustls the serving certificate: the last good one, until the API server trusts a newer one.
//!
//! Imports `client_authority` and the certificate types. Called by `source`, which offers certificates, by `inject`, which reports
//! what the webhook configurations trust, and by `taskgate-webhook`, which serves.

#[cfg(test)]
mod tests;
mod trust;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tracing::{error, info};

pub(crate) use trust::PublishedBundles;
pub use trust::WebhookConfigurationKind;
use trust::{ApiServerTrust, SwitchTime};

use crate::{client_authority::ClientAuthority, error_chain, serving_certificate::ServingCertificate, x509::CaBundle};

/// How often the served certificate is checked for expiry while a newer one waits.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Resolves the certificate of each TLS handshake. Replacing it does not affect open connections.
#[derive(Debug)]
pub struct Resolver {
    served: ArcSwapOption<ServingCertificate>,
    /// Never locked across an await.
    state: Mutex<ResolverState>,
    bundle: watch::Sender<Option<CaBundle>>,
    changed: Notify,
}

#[derive(Debug)]
struct ResolverState {
    /// The newer certificate that waits.
    next: Option<ServingCertificate>,
    trust: ApiServerTrust,
    last_error: Option<String>,
}

impl Resolver {
    /// A resolver without a certificate: handshakes fail until [`Resolver::offer`] or [`Resolver::serve`].
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            served: ArcSwapOption::empty(),
            state: Mutex::new(ResolverState {
                next: None,
                trust: ApiServerTrust::new(),
                last_error: None,
            }),
            bundle: watch::Sender::new(None),
            changed: Notify::new(),
        })
    }

    /// The rustls configuration, one for the life of the process. `alpn` is in order of preference; `clients` verifies client
    /// certificates.
    ///
    /// # Panics
    /// Never: the ring provider supports both TLS versions.
    pub fn server_config(self: &Arc<Self>, alpn: &[&[u8]], clients: Option<Arc<ClientAuthority>>) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports TLS 1.2 and 1.3");
        let mut config = match clients {
            None => builder.with_no_client_auth().with_cert_resolver(self.clone()),
            Some(clients) => {
                let mut config = builder
                    .with_client_cert_verifier(clients)
                    .with_cert_resolver(self.clone());
                // A resumed session is not verified again: a client would outlive its authority.
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
                config
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }

    /// Serves `certificate` as soon as the API server trusts it; the served certificate stays until then. Its bundle is published at
    /// once.
    pub fn offer(&self, certificate: ServingCertificate) {
        {
            let mut state = self.state();
            state.last_error = None;
            let is_served = |served: &Arc<ServingCertificate>| served.is_same_as(&certificate);
            if self.served.load().as_ref().is_some_and(is_served) {
                state.next = None;
            } else if state.next.as_ref().is_none_or(|next| !next.is_same_as(&certificate)) {
                state.next = Some(certificate.clone());
            }
        }
        self.try_switch();
        self.publish(certificate.bundle);
        self.changed.notify_one();
    }

    /// Serves `certificate` from the next handshake on, trusted or not.
    pub fn serve(&self, certificate: ServingCertificate) {
        let mut state = self.state();
        state.last_error = None;
        state.next = None;
        drop(state);
        let bundle = certificate.bundle.clone();
        self.replace(certificate);
        self.publish(bundle);
    }

    /// Serves each waiting certificate when its time has come. Never ends.
    pub async fn follow(&self) {
        loop {
            let check_at = self.try_switch().map(|time| match time {
                SwitchTime::At(at) => at,
                // The served certificate may expire meanwhile.
                SwitchTime::Wait | SwitchTime::Now => Instant::now() + CHECK_EVERY,
            });
            tokio::select! {
                () = sleep_until(check_at.unwrap_or_else(Instant::now)), if check_at.is_some() => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Records the bundles that a webhook configuration publishes to the API server.
    pub(crate) fn record_published(&self, kind: WebhookConfigurationKind, published: PublishedBundles) {
        let served = self.served();
        let mut state = self.state();
        if !state.trust.record(kind, published, served.as_deref()) {
            return;
        }
        drop(state);
        self.try_switch();
        self.changed.notify_one();
    }

    /// Records and logs why the certificate cannot be renewed. The served certificate stays.
    pub fn report_problem(&self, problem: &(dyn std::error::Error + 'static)) {
        let text = error_chain(problem);
        let last = &mut self.state().last_error;
        if last.as_ref() != Some(&text) {
            error!(error = text, "the serving certificate cannot be renewed");
            *last = Some(text);
        }
    }

    /// The health of the serving certificate.
    pub fn health(&self) -> CertificateHealth {
        let state = self.state();
        let served = self.served.load();
        CertificateHealth {
            leaf_not_after: served.as_ref().map(|certificate| certificate.leaf_not_after()),
            ca_not_after: served.as_ref().map(|certificate| certificate.ca.until),
            waiting: state.next.is_some(),
            last_error: state.last_error.clone(),
        }
    }

    /// The CA bundle to publish, now and after every change; while a newer certificate waits, the bundle of that one.
    pub fn bundle(&self) -> watch::Receiver<Option<CaBundle>> {
        self.bundle.subscribe()
    }

    /// The served certificate.
    pub fn served(&self) -> Option<Arc<ServingCertificate>> {
        self.served.load_full()
    }

    /// Whether every webhook of the configuration `kind` trusts the served certificate, and the API server has had time to apply
    /// that; false while it is unknown.
    pub fn is_trusted(&self, kind: WebhookConfigurationKind) -> bool {
        let served = self.served();
        served.is_some_and(|served| self.state().trust.trusts(kind, &served, Timestamp::now()))
    }

    /// Serves the waiting certificate if its time has come. `None` if none waits.
    fn try_switch(&self) -> Option<SwitchTime> {
        let mut state = self.state();
        let next = state.next.take()?;
        let time = state
            .trust
            .switch_time(self.served.load().as_deref(), &next, Timestamp::now());
        if time == SwitchTime::Now {
            self.replace(next);
            return None;
        }
        state.next = Some(next);
        Some(time)
    }

    fn replace(&self, certificate: ServingCertificate) {
        info!(
            not_after = %certificate.leaf_not_after(),
            ca_not_after = %certificate.ca.until,
            "serving a new certificate"
        );
        self.served.store(Some(Arc::new(certificate)));
    }

    fn publish(&self, bundle: CaBundle) {
        self.bundle.send_if_modified(|published| {
            let changed = published.as_ref() != Some(&bundle);
            *published = Some(bundle);
            changed
        });
    }

    fn state(&self) -> MutexGuard<'_, ResolverState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.served.load().as_ref()?.key.clone())
    }
}

/// The health of the serving certificate, for probes and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateHealth {
    /// When the served leaf expires; `None` if no certificate is served yet.
    pub leaf_not_after: Option<Timestamp>,
    /// When the authority expires.
    pub ca_not_after: Option<Timestamp>,
    /// Whether a newer certificate waits until the API server trusts it.
    pub waiting: bool,
    /// The last problem since the last good certificate.
    pub last_error: Option<String>,
}

impl CertificateHealth {
    /// Whether a certificate is served whose leaf and authority are both valid at `now`.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        [self.leaf_not_after, self.ca_not_after]
            .into_iter()
            .all(|end| end.is_some_and(|end| now < end))
    }
}
