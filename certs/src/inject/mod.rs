//! Follows what the webhook configurations tell the API server to trust and, where nobody else does, writes the bundle into
//! them.

mod configuration;
mod state;

use std::{pin::pin, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::{Api, Client};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

pub use state::{Injection, InjectionState, Target};

use crate::{Backoff, Resolver, chain::chain, watched::watched};
use configuration::{Configuration, inject, published};

/// The field manager under which the bundle is applied.
pub const MANAGER: &str = "taskgate-ca";

/// Who writes the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caretaker {
    /// We do.
    Taskgate,
    /// Somebody else, such as cert-manager's CA injector. We only look.
    Others,
}

/// Keeps the bundle of two configurations of one name such that what is served is trusted, and what is to be served next, and
/// tells the [`Resolver`] what they say.
///
/// Guarantees: it owns `clientConfig.caBundle` of the webhooks that it finds and nothing else, and writes nothing while the
/// bundle is there, alone or among others. It only adds: authorities that others put there, and earlier ones of ours, stay until
/// they expire. What was written there by hand is mended; where somebody applies a bundle of their own, or cert-manager is asked
/// to inject one, the field is left to them.
///
/// Caveat: an apply that names a list entry co-owns the entry. Whoever removes a webhook from a configuration by
/// server-side apply is therefore refused by the API server (the entry would be left with a bundle only); by an update, or
/// by deleting the configuration and creating it again, it goes.
///
/// RBAC: `list`, `watch` on both configurations, by resource name, and `patch` where we write.
pub struct Injector {
    client: Client,
    name: String,
    resolver: Arc<Resolver>,
    caretaker: Caretaker,
    injection: Injection,
}

impl Injector {
    /// Follows both configurations called `name` for `resolver`, and writes its bundle into them if that is for us to do.
    pub fn new(client: Client, name: String, resolver: Arc<Resolver>, caretaker: Caretaker) -> Self {
        Self {
            client,
            name,
            resolver,
            caretaker,
            injection: Injection::new(),
        }
    }

    /// A handle to how far it is.
    pub fn injection(&self) -> Injection {
        self.injection.clone()
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let both = async {
            tokio::join!(
                self.keep::<MutatingWebhookConfiguration>(),
                self.keep::<ValidatingWebhookConfiguration>(),
                self.resolver.follow(),
            )
        };
        shutdown.run_until_cancelled(both).await;
    }

    /// Follows one configuration for ever.
    async fn keep<K: Configuration>(&self) {
        let span = info_span!("inject", configuration = %K::TARGET, name = self.name);
        async {
            let api = Api::<K>::all(self.client.clone());
            let mut events = pin!(watched(api.clone(), &self.name));
            let mut bundle = self.resolver.bundle();
            let mut backoff = Backoff::default();
            let mut seen: Option<Option<K>> = None;
            let mut retry_at: Option<Instant> = None;
            let mut blind = false;
            loop {
                let retry = async {
                    match retry_at {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    Some(event) = events.next() => match event {
                        Ok(configuration) => {
                            blind = false;
                            seen = Some(configuration);
                        }
                        // What was seen last is what is known: the state stays.
                        Err(problem) => {
                            if !std::mem::replace(&mut blind, true) {
                                warn!(error = chain(&problem), "cannot watch the configuration");
                            }
                            continue;
                        }
                    },
                    Ok(()) = bundle.changed() => {}
                    () = retry => {}
                }
                let wanted = bundle.borrow_and_update().clone();
                if let Some(configuration) = &seen {
                    self.resolver.published(K::TARGET, published(configuration.as_ref()));
                }
                let state = match (&seen, wanted) {
                    (None, _) | (Some(Some(_)), None) => InjectionState::Unknown,
                    (Some(None), _) => InjectionState::Absent,
                    (Some(Some(found)), Some(wanted)) if found.carries(&wanted) => InjectionState::Carried,
                    (Some(Some(found)), Some(wanted)) => match self.caretaker {
                        Caretaker::Taskgate => match inject(&api, &self.name, found, &wanted).await {
                            Some(state) => state,
                            None => continue,
                        },
                        Caretaker::Others => InjectionState::Awaited,
                    },
                };
                retry_at = if matches!(state, InjectionState::Failed(_)) {
                    Some(Instant::now() + backoff.delay())
                } else {
                    backoff.reset();
                    None
                };
                self.note::<K>(&state);
            }
        }
        .instrument(span)
        .await;
    }

    /// One line per change of state.
    fn note<K: Configuration>(&self, state: &InjectionState) {
        if !self.injection.set(K::TARGET, state) {
            return;
        }
        match state {
            InjectionState::Unknown => {}
            InjectionState::Absent => info!("no such configuration yet"),
            InjectionState::Carried => info!("the configuration carries our certificate authority"),
            InjectionState::Awaited => info!("the configuration does not carry the certificate authority yet"),
            InjectionState::Conflict(who) => warn!(
                conflict = who,
                "another field manager owns the caBundle; leaving it alone, calls will fail unless it trusts us"
            ),
            InjectionState::Failed(error) => warn!(error, "the caBundle cannot be set; trying again"),
        }
    }
}
