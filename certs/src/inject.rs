//! Writes the bundle into the webhook configurations, so that the API server trusts what is served.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use k8s_openapi::{
    ByteString, ClusterResourceScope, Metadata,
    api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::{Backoff, CaBundle, resolver::chain, watched::watched};

/// The field manager under which the bundle is applied.
pub const MANAGER: &str = "taskgate-ca";

/// One of the two configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The `MutatingWebhookConfiguration`.
    Mutating,
    /// The `ValidatingWebhookConfiguration`.
    Validating,
}

/// How far a configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectionState {
    /// Neither the configuration nor a bundle was seen yet.
    Unknown,
    /// There is no such configuration. Normal: it may come at any time.
    Absent,
    /// Every webhook in it trusts what is served.
    Carried,
    /// Somebody else owns the bundle and it is another one. It is left alone.
    Conflict(String),
    /// The bundle could not be written; it is tried again.
    Failed(String),
}

/// How far each configuration is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Injection(Arc<Mutex<[(Target, InjectionState); 2]>>);

/// Keeps the bundle of two configurations of one name equal to what is served.
///
/// Guarantees: it owns `clientConfig.caBundle` of the webhooks that it finds and nothing else, never takes the field from
/// another manager, and writes nothing while the bundle is there, alone or among others.
///
/// Caveat: an apply that names a list entry co-owns the entry. Whoever removes a webhook from a configuration by
/// server-side apply is therefore refused by the API server (the entry would be left with a bundle only); by an update, or
/// by deleting the configuration and creating it again, it goes.
///
/// RBAC: `list`, `watch`, `patch` on both configurations, by resource name.
pub struct Injector {
    client: Client,
    name: String,
    bundle: watch::Receiver<Option<CaBundle>>,
    injection: Injection,
}

impl Injection {
    /// The state of each configuration.
    pub fn states(&self) -> [(Target, InjectionState); 2] {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes `state`; whether it is news.
    fn set(&self, target: Target, state: &InjectionState) -> bool {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, entry)) = states.iter_mut().find(|(key, _)| *key == target) else {
            return false;
        };
        let news = entry != state;
        entry.clone_from(state);
        news
    }
}

impl Injector {
    /// Injects what `bundle` says into both configurations called `name`.
    pub fn new(client: Client, name: String, bundle: watch::Receiver<Option<CaBundle>>) -> Self {
        let states = [Target::Mutating, Target::Validating].map(|target| (target, InjectionState::Unknown));
        let injection = Injection(Arc::new(Mutex::new(states)));
        Self {
            client,
            name,
            bundle,
            injection,
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
            let mut bundle = self.bundle.clone();
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
                let published = bundle.borrow_and_update().clone();
                let state = match (&seen, published) {
                    (None, _) | (Some(Some(_)), None) => InjectionState::Unknown,
                    (Some(None), _) => InjectionState::Absent,
                    (Some(Some(configuration)), Some(published)) => {
                        inject(&api, &self.name, configuration, &published).await
                    }
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
            InjectionState::Conflict(who) => warn!(
                conflict = who,
                "another field manager owns the caBundle; leaving it alone, calls will fail unless it trusts us"
            ),
            InjectionState::Failed(error) => warn!(error, "the caBundle cannot be set; trying again"),
        }
    }
}

/// Applies the bundle unless it is there already.
async fn inject<K: Configuration>(api: &Api<K>, name: &str, found: &K, bundle: &CaBundle) -> InjectionState {
    if found.carries(bundle) {
        return InjectionState::Carried;
    }
    let webhooks: Vec<_> = found
        .bundles()
        .map(|(webhook, _)| json!({"name": webhook, "clientConfig": {"caBundle": ByteString(bundle.pem().to_vec())}}))
        .collect();
    let patch = json!({
        "apiVersion": K::API_VERSION,
        "kind": K::KIND,
        // Of exactly this object: an apply must not bring back one that was deleted meanwhile.
        "metadata": {"name": name, "uid": found.metadata().uid},
        "webhooks": webhooks,
    });
    match api
        .patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(patch))
        .await
    {
        Ok(applied) if applied.carries(bundle) => InjectionState::Carried,
        Ok(_) => InjectionState::Failed("the API server took the bundle and shows another".to_owned()),
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "Conflict" => {
            InjectionState::Conflict(status.message.clone())
        }
        Err(kube::Error::Api(status)) => InjectionState::Failed(status.message.clone()),
        Err(problem) => InjectionState::Failed(problem.to_string()),
    }
}

/// What the two kinds of configuration have in common.
trait Configuration:
    k8s_openapi::Resource<Scope = ClusterResourceScope>
    + Metadata<Ty = ObjectMeta>
    + Clone
    + fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const TARGET: Target;

    /// The name and the bundle of each webhook.
    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)>;

    /// Whether every webhook trusts `bundle`.
    fn carries(&self, bundle: &CaBundle) -> bool {
        self.bundles()
            .all(|(_, published)| published.is_some_and(|published| bundle.is_within(&published.0)))
    }
}

impl Configuration for MutatingWebhookConfiguration {
    const TARGET: Target = Target::Mutating;

    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), webhook.client_config.ca_bundle.as_ref()))
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    const TARGET: Target = Target::Validating;

    fn bundles(&self) -> impl Iterator<Item = (&str, Option<&ByteString>)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), webhook.client_config.ca_bundle.as_ref()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mutating => "MutatingWebhookConfiguration",
            Self::Validating => "ValidatingWebhookConfiguration",
        })
    }
}

impl fmt::Display for InjectionState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => formatter.write_str("not seen yet"),
            Self::Absent => formatter.write_str("does not exist"),
            Self::Carried => formatter.write_str("carries our certificate authority"),
            Self::Conflict(who) => write!(formatter, "another field manager owns its caBundle: {who}"),
            Self::Failed(error) => write!(formatter, "its caBundle cannot be set: {error}"),
        }
    }
}
