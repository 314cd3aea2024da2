//! Which certificate is served: the last good one.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;
use tracing::{error, info};

use crate::{CaBundle, Material, San};

/// Hands each TLS handshake the certificate of the moment. Replacing it disturbs no connection.
#[derive(Debug)]
pub struct Resolver {
    served: ArcSwapOption<Material>,
    bundle: watch::Sender<Option<CaBundle>>,
    last_error: Mutex<Option<String>>,
}

/// How the serving certificate is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// When the served leaf expires. `None`: nothing is served yet.
    pub leaf_not_after: Option<Timestamp>,
    /// When the authority expires.
    pub ca_not_after: Option<Timestamp>,
    /// What went wrong since the last good certificate came.
    pub last_error: Option<String>,
}

impl Health {
    /// Whether a certificate is served whose leaf and authority are both valid at `now`.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        [self.leaf_not_after, self.ca_not_after]
            .into_iter()
            .all(|end| end.is_some_and(|end| now < end))
    }
}

impl Resolver {
    /// A resolver without a certificate: handshakes fail until [`Resolver::serve`].
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            served: ArcSwapOption::empty(),
            bundle: watch::Sender::new(None),
            last_error: Mutex::new(None),
        })
    }

    /// The rustls configuration to serve with; one for the life of the process. `alpn` in order of preference.
    ///
    /// # Panics
    /// Never: the ring provider supports both TLS versions.
    pub fn server_config(self: &Arc<Self>, alpn: &[&[u8]]) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }

    /// Serves `material` from the next handshake on.
    pub fn serve(&self, material: Material) {
        *self.last_error() = None;
        if self
            .served
            .load()
            .as_ref()
            .is_some_and(|served| served.is_same_as(&material))
        {
            return;
        }
        info!(
            not_after = %material.leaf_not_after,
            ca_not_after = %material.ca_not_after,
            "serving a new certificate"
        );
        let bundle = material.bundle.clone();
        self.served.store(Some(Arc::new(material)));
        // Published last: whoever sees the bundle is already served by its authority.
        self.bundle.send_if_modified(|published| {
            let changed = published.as_ref() != Some(&bundle);
            *published = Some(bundle);
            changed
        });
    }

    /// Remembers why there is no better certificate. What is served stays.
    pub fn report(&self, problem: &(dyn std::error::Error + 'static)) {
        let text = chain(problem);
        let mut last = self.last_error();
        if last.as_ref() != Some(&text) {
            error!(error = text, "the serving certificate cannot be renewed");
            *last = Some(text);
        }
    }

    /// How the serving certificate is doing.
    pub fn health(&self) -> Health {
        let served = self.served.load();
        Health {
            leaf_not_after: served.as_ref().map(|material| material.leaf_not_after),
            ca_not_after: served.as_ref().map(|material| material.ca_not_after),
            last_error: self.last_error().clone(),
        }
    }

    /// The bundle that clients are to trust, now and after every change.
    pub fn bundle(&self) -> watch::Receiver<Option<CaBundle>> {
        self.bundle.subscribe()
    }

    /// The name under which the API server dials us: the first of the served certificate.
    pub fn name(&self) -> Option<San> {
        self.served.load().as_ref()?.names.first().cloned()
    }

    fn last_error(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.served.load().as_ref()?.key.clone())
    }
}

/// An error and everything beneath it, without saying anything twice.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MaterialError, issue_all};

    fn material(now: Timestamp) -> Material {
        let data = issue_all(&["a.b".parse().unwrap()], now).unwrap();
        Material::try_from(&data).unwrap()
    }

    #[test]
    fn the_last_good_certificate_outlives_a_problem_and_the_next_good_one_clears_it() {
        let now = Timestamp::UNIX_EPOCH;
        let resolver = Resolver::new();
        assert!(!resolver.health().is_valid_at(now));
        resolver.serve(material(now));
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

        resolver.serve(material(now));
        assert_eq!(resolver.health().last_error, None);
    }

    #[test]
    fn whoever_waits_for_the_bundle_is_woken_only_by_a_change() {
        let resolver = Resolver::new();
        let mut bundle = resolver.bundle();
        let material = material(Timestamp::UNIX_EPOCH);
        resolver.serve(material.clone());
        assert!(bundle.has_changed().unwrap());
        assert_eq!(bundle.borrow_and_update().as_ref(), Some(material.bundle()));
        resolver.serve(material);
        assert!(!bundle.has_changed().unwrap());
    }
}
