//! Follows the webhook configurations' CA bundles and, unless another component manages them, writes the bundle.
//!
//! Imports `resolver`, `source` (the watch) and `bundle`. Called by the binary.

mod configuration;

use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use backon::BackoffBuilder as _;
use futures::StreamExt as _;
use kube::{Api, Client, api::DynamicObject, runtime::watcher};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span, warn};

use crate::{
    BACKOFF, LONGEST_DELAY, error_chain,
    resolver::{PublishedBundles, Resolver, WebhookConfigurationKind},
    source::watch_by_name,
};
use configuration::{WebhookConfiguration, resource};

/// The field manager under which the bundle is applied.
pub const CA_FIELD_MANAGER: &str = "taskgate-ca";

/// The component that writes the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleManager {
    /// taskgate does.
    Taskgate,
    /// Another component, such as cert-manager's CA injector. taskgate only reads.
    External,
}

/// Keeps the bundles of both configurations of one name such that the served certificate and the next one are trusted, and reports
/// the published bundles to the [`Resolver`].
///
/// It owns `clientConfig.caBundle` of the existing webhooks and nothing else, and writes nothing while the bundle is in the field,
/// alone or among others. It only adds: authorities of others, and earlier ones of taskgate, stay until they expire. A manual
/// change is repaired; where another manager applies a bundle, or cert-manager is asked to inject one, the field is skipped.
///
/// Caveat: an apply that names a list entry co-owns the entry. Removing a webhook from a configuration by server-side apply is
/// therefore refused by the API server (the entry would be left with a bundle only); an update, or deleting and recreating the
/// configuration, works.
///
/// RBAC: `list`, `watch` on both configurations, by resource name, and `patch` where taskgate writes.
pub struct Injector {
    client: Client,
    name: String,
    resolver: Arc<Resolver>,
    manager: BundleManager,
    injection: Injection,
}

impl Injector {
    /// Follows both configurations called `name` for `resolver`, and writes its bundle into them unless `manager` is external.
    pub fn new(client: Client, name: String, resolver: Arc<Resolver>, manager: BundleManager) -> Self {
        Self {
            client,
            name,
            resolver,
            manager,
            injection: Injection::new(),
        }
    }

    /// A handle to its state.
    pub fn injection(&self) -> Injection {
        self.injection.clone()
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let both = async {
            tokio::join!(
                self.follow(WebhookConfigurationKind::Mutating),
                self.follow(WebhookConfigurationKind::Validating),
                self.resolver.follow(),
            )
        };
        shutdown.run_until_cancelled(both).await;
    }

    /// Follows one configuration forever.
    async fn follow(&self, kind: WebhookConfigurationKind) {
        let span = info_span!("inject", configuration = %kind, name = self.name);
        async {
            let resource = resource(kind);
            let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
            let mut events = pin!(watch_by_name(api.clone(), &self.name));
            let mut bundle = self.resolver.bundle();
            let mut backoff = BACKOFF.build();
            let mut seen: Option<Option<WebhookConfiguration>> = None;
            let mut retry_at: Option<Instant> = None;
            let mut watch_failed = false;
            loop {
                tokio::select! {
                    Some(event) = events.next() => match read(event) {
                        Ok(configuration) => {
                            watch_failed = false;
                            seen = Some(configuration);
                        }
                        // The state stays as it was last read.
                        Err(problem) => {
                            if !std::mem::replace(&mut watch_failed, true) {
                                warn!(error = problem, "cannot watch the configuration");
                            }
                            continue;
                        }
                    },
                    Ok(()) = bundle.changed() => {}
                    () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
                }
                retry_at = None;
                let wanted = bundle.borrow_and_update().clone();
                if let Some(configuration) = &seen {
                    let published = configuration.as_ref().map(WebhookConfiguration::published);
                    self.resolver
                        .record_published(kind, published.unwrap_or(PublishedBundles::Absent));
                }
                let state = match (&seen, wanted) {
                    (None, _) | (Some(Some(_)), None) => InjectionState::Unknown,
                    (Some(None), _) => InjectionState::Absent,
                    (Some(Some(found)), Some(wanted)) if found.carries(&wanted) => InjectionState::Injected,
                    (Some(Some(found)), Some(wanted)) => match self.manager {
                        BundleManager::Taskgate => match found.inject(&api, &resource, &self.name, &wanted).await {
                            Some(state) => state,
                            None => continue,
                        },
                        BundleManager::External => InjectionState::Pending,
                    },
                };
                if matches!(state, InjectionState::Failed(_)) {
                    retry_at = Some(Instant::now() + backoff.next().unwrap_or(LONGEST_DELAY));
                } else {
                    backoff = BACKOFF.build();
                }
                self.set_state(kind, &state);
            }
        }
        .instrument(span)
        .await;
    }

    /// Sets the state of a configuration, and logs a change.
    fn set_state(&self, kind: WebhookConfigurationKind, state: &InjectionState) {
        if !self.injection.set(kind, state) {
            return;
        }
        match state {
            InjectionState::Unknown => {}
            InjectionState::Absent => info!("no such configuration yet"),
            InjectionState::Injected => info!("the configuration carries our certificate authority"),
            InjectionState::Pending => info!("the configuration does not carry the certificate authority yet"),
            InjectionState::Conflict(who) => warn!(
                conflict = who,
                "another field manager owns the caBundle; skipping it, calls will fail unless it contains our certificate authority"
            ),
            InjectionState::Failed(error) => warn!(error, "the caBundle cannot be set; retrying"),
        }
    }
}

/// The configuration in an event of a watch, or why it cannot be read.
fn read(event: Result<Option<DynamicObject>, watcher::Error>) -> Result<Option<WebhookConfiguration>, String> {
    let object = event.map_err(|error| error_chain(&error))?;
    let configuration = object.map(WebhookConfiguration::try_from).transpose();
    configuration.map_err(|error| error_chain(&error))
}

/// The injection state of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectionState {
    /// Neither the configuration nor a bundle was read yet.
    Unknown,
    /// The configuration does not exist (yet).
    Absent,
    /// Every webhook in it trusts the served certificate and the next one.
    Injected,
    /// The external manager has not written the bundle yet.
    Pending,
    /// Another field manager owns the field, with another bundle. taskgate skips it.
    Conflict(String),
    /// The bundle could not be written; taskgate retries.
    Failed(String),
}

/// The injection state of both configurations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Injection(Arc<Mutex<[(WebhookConfigurationKind, InjectionState); 2]>>);

impl Injection {
    /// With unknown states.
    fn new() -> Self {
        let states = [WebhookConfigurationKind::Mutating, WebhookConfigurationKind::Validating]
            .map(|kind| (kind, InjectionState::Unknown));
        Self(Arc::new(Mutex::new(states)))
    }

    /// The state of each configuration.
    pub fn states(&self) -> [(WebhookConfigurationKind, InjectionState); 2] {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the state of `kind`; whether it changed.
    fn set(&self, kind: WebhookConfigurationKind, state: &InjectionState) -> bool {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, entry) = &mut states[kind as usize];
        let changed = entry != state;
        entry.clone_from(state);
        changed
    }
}

impl fmt::Display for InjectionState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => formatter.write_str("not read yet"),
            Self::Absent => formatter.write_str("does not exist"),
            Self::Injected => formatter.write_str("carries our certificate authority"),
            Self::Pending => formatter.write_str("does not carry our certificate authority yet"),
            Self::Conflict(who) => write!(formatter, "another field manager owns its caBundle: {who}"),
            Self::Failed(error) => write!(formatter, "its caBundle cannot be set: {error}"),
        }
    }
}
