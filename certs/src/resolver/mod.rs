//! Which certificate is served: the last good one, until the API server is known to trust a newer one.

mod health;
#[cfg(test)]
mod tests;

use std::{
    future::pending,
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
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info};

pub use health::Health;

use crate::{
    CaBundle, ClientAuthority, Material, Target,
    chain::chain,
    trust::{Published, Trust, Turn},
};

/// How long an API server that did not trust us may take to notice that it is to. Nobody is ready before.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether what is served has expired while a newer one waits.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Hands each TLS handshake the certificate of the moment. Replacing it disturbs no connection.
#[derive(Debug)]
pub struct Resolver {
    served: ArcSwapOption<Material>,
    /// What is to be served next, what is known of the API server, and what went wrong. Never locked across an await.
    state: Mutex<State>,
    bundle: watch::Sender<Option<CaBundle>>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    next: Option<Material>,
    trust: Trust,
    /// When a configuration that did not trust what is served began to.
    trusted_at: Option<Instant>,
    last_error: Option<String>,
}

impl Resolver {
    /// A resolver without a certificate: handshakes fail until [`Resolver::offer`] or [`Resolver::serve`].
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            served: ArcSwapOption::empty(),
            state: Mutex::new(State {
                next: None,
                trust: Trust::new(),
                trusted_at: None,
                last_error: None,
            }),
            bundle: watch::Sender::new(None),
            changed: Notify::new(),
        })
    }

    /// The rustls configuration to serve with; one for the life of the process. `alpn` in order of preference; `clients`
    /// verifies who calls, if that is asked for.
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
                // A session that is resumed is not verified again: a client would outlive its authority.
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
                config
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }

    /// Serves `material` as soon as the API server is known to trust it; what is served now stays until then. Its bundle is
    /// published at once.
    pub fn offer(&self, material: Material) {
        {
            let mut state = self.state();
            state.last_error = None;
            let is_served = |served: &Arc<Material>| served.is_same_as(&material);
            if self.served.load().as_ref().is_some_and(is_served) {
                state.next = None;
            } else if state.next.as_ref().is_none_or(|next| !next.is_same_as(&material)) {
                state.next = Some(material.clone());
            }
        }
        self.turn();
        self.publish(material.bundle);
        self.changed.notify_one();
    }

    /// Serves `material` from the next handshake on, trusted or not.
    pub fn serve(&self, material: Material) {
        let mut state = self.state();
        state.last_error = None;
        state.next = None;
        drop(state);
        let bundle = material.bundle.clone();
        self.replace(material);
        self.publish(bundle);
    }

    /// Serves what waits, each time its moment has come. Never ends.
    pub async fn follow(&self) {
        loop {
            let moment = async {
                match self.turn() {
                    Some(Turn::At(at)) => sleep_until(at).await,
                    // What is served may expire meanwhile.
                    Some(_) => sleep(CHECK_EVERY).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = moment => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Notes what a webhook configuration tells the API server to trust.
    pub(crate) fn published(&self, target: Target, published: Published) {
        let served = self.served();
        let mut state = self.state();
        let trusts = |trust: &Trust| {
            let served = served.as_ref();
            served.is_some_and(|served| trust.trusts(target, served, Timestamp::now()))
        };
        let distrusted = state.trust.is_known(target) && !trusts(&state.trust);
        if !state.trust.note(target, published) {
            return;
        }
        if distrusted && trusts(&state.trust) {
            state.trusted_at = Some(Instant::now());
        }
        drop(state);
        self.turn();
        self.changed.notify_one();
    }

    /// Remembers why there is no better certificate. What is served stays.
    pub fn report(&self, problem: &(dyn std::error::Error + 'static)) {
        let text = chain(problem);
        let last = &mut self.state().last_error;
        if last.as_ref() != Some(&text) {
            error!(error = text, "the serving certificate cannot be renewed");
            *last = Some(text);
        }
    }

    /// How the serving certificate is doing.
    pub fn health(&self) -> Health {
        let state = self.state();
        let served = self.served.load();
        Health {
            leaf_not_after: served.as_ref().map(|material| material.leaf_not_after),
            ca_not_after: served.as_ref().map(|material| material.ca_not_after),
            waiting: state.next.is_some(),
            last_error: state.last_error.clone(),
        }
    }

    /// The bundle that clients are to trust, now and after every change; that of the newer certificate while one waits.
    pub fn bundle(&self) -> watch::Receiver<Option<CaBundle>> {
        self.bundle.subscribe()
    }

    /// What is served.
    pub fn served(&self) -> Option<Arc<Material>> {
        self.served.load_full()
    }

    /// Whether every webhook of `target` trusts what is served, and the API server has had a moment to notice; false while that
    /// is not known.
    pub fn is_trusted(&self, target: Target) -> bool {
        let Some(served) = self.served() else { return false };
        let state = self.state();
        let noticed = state.trusted_at.is_none_or(|at| at.elapsed() >= NOTICED_WITHIN);
        noticed && state.trust.trusts(target, &served, Timestamp::now())
    }

    /// Serves what waits if its moment has come. `None`: nothing waits.
    fn turn(&self) -> Option<Turn> {
        let mut state = self.state();
        let next = state.next.take()?;
        let turn = state.trust.turn(self.served.load().as_deref(), &next, Timestamp::now());
        if turn == Turn::Now {
            self.replace(next);
            return None;
        }
        state.next = Some(next);
        Some(turn)
    }

    fn replace(&self, material: Material) {
        info!(
            not_after = %material.leaf_not_after,
            ca_not_after = %material.ca_not_after,
            "serving a new certificate"
        );
        self.served.store(Some(Arc::new(material)));
    }

    fn publish(&self, bundle: CaBundle) {
        self.bundle.send_if_modified(|published| {
            let changed = published.as_ref() != Some(&bundle);
            *published = Some(bundle);
            changed
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.served.load().as_ref()?.key.clone())
    }
}
