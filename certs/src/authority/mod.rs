//! The certificate source for clusters without cert-manager: one Secret, shared by all replicas, through the API.

mod config;
mod error;

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, instrument};

pub use config::AuthorityConfig;
use error::AuthorityError;

use crate::{
    Backoff, CaBundle, Material, Reason, Resolver, San, Scope, SecretData, Source, issue_all, issue_leaf, needs_new,
    watched::watched, x509::names_of,
};

/// How often the certificates are held against the wall clock, whatever the timers say: those stand still while a
/// machine is suspended (C4). More often where they live for less than half an hour.
const CHECK_EVERY: Duration = Duration::from_mins(1);
/// A replica that has a good certificate makes a new authority at most this often. Without it two replicas whose clocks disagree
/// would replace each other's for ever.
const AUTHORITY_EVERY: Duration = Duration::from_mins(1);
/// How often a lost race against another replica is looked at again before it counts as an error.
const ATTEMPTS: usize = 5;
const FIELD_MANAGER: &str = "taskgate-certs";
const SECRET_TYPE: &str = "kubernetes.io/tls";

/// A self-signed authority in a Secret.
///
/// Guarantees: replicas that find no Secret, or a bad one, at the same time end up with the same certificates (the first
/// create, or the first update of a resourceVersion, wins; the others read it). Entries, labels and annotations of the
/// Secret that are not ours stay. A new authority is put before the old ones that are still valid, in the Secret and so in what
/// is published: whatever any replica serves stays trusted. At rest it writes and reads nothing but its one watch.
///
/// RBAC: `get`, `list`, `watch`, `update` on the Secret by resource name, `create` on Secrets of the namespace.
pub struct Authority {
    secrets: Api<Secret>,
    config: AuthorityConfig,
    /// When this replica made the last authority.
    made: Mutex<Option<Instant>>,
}

impl Authority {
    /// The authority that `config` describes.
    pub fn new(client: Client, config: AuthorityConfig) -> Self {
        let secrets = Api::namespaced(client, &config.namespace);
        Self {
            secrets,
            config,
            made: Mutex::new(None),
        }
    }

    /// Finds or makes certificates that are fit at `now`, reading the Secret first.
    pub async fn ensure(&self, now: Timestamp) -> Result<Secret, AuthorityError> {
        let found = self.read().await?;
        self.settle(found, None, now).await
    }

    /// Makes `found` fit to be served at `now`, or whatever another replica put in its place. Whoever trusts `served` goes on
    /// trusting it.
    async fn settle(
        &self,
        mut found: Option<Secret>,
        served: Option<&Material>,
        now: Timestamp,
    ) -> Result<Secret, AuthorityError> {
        let mut reason = Reason::NoSecret;
        for _ in 0..ATTEMPTS {
            let verdict = match &found {
                None => Some(Reason::NoSecret),
                Some(secret) => needs_new(&SecretData::from(secret), &self.config.names, now),
            };
            found = match (verdict, found) {
                (None, Some(secret)) => return Ok(secret),
                (verdict, found) => {
                    reason = verdict.unwrap_or(Reason::NoSecret);
                    let data = self.issue(found.as_ref(), served, reason, now)?;
                    self.replace(found, data, reason).await?
                }
            };
        }
        let secret = self.coordinates();
        Err(AuthorityError::Contended { secret, reason })
    }

    /// Writes new certificates over exactly what was `found`. Whoever lost a race gets the winner's Secret, if it is
    /// still there.
    async fn replace(
        &self,
        found: Option<Secret>,
        data: SecretData,
        reason: Reason,
    ) -> Result<Option<Secret>, AuthorityError> {
        let post = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        // 409: somebody else was quicker. 404: somebody deleted what we wanted to update.
        let exists = found.is_some();
        let lost = |code| code == 409 || (exists && code == 404);
        let mut secret = found.unwrap_or_else(|| self.empty());
        data.write_to(secret.data.get_or_insert_default());
        // An update carries the resourceVersion of what was found: it fails if anybody wrote meanwhile.
        let written = if exists {
            self.secrets.replace(&self.config.secret, &post, &secret).await
        } else {
            self.secrets.create(&post, &secret).await
        };
        match written {
            Ok(secret) => {
                info!(secret = self.coordinates(), %reason, "wrote new certificates");
                Ok(Some(secret))
            }
            Err(kube::Error::Api(status)) if lost(status.code) => self.read().await,
            Err(source) => Err(self.api_error("writing", source)),
        }
    }

    fn issue(
        &self,
        found: Option<&Secret>,
        served: Option<&Material>,
        reason: Reason,
        now: Timestamp,
    ) -> Result<SecretData, AuthorityError> {
        let data = found.map(SecretData::from).unwrap_or_default();
        let failed = |source| AuthorityError::Issue {
            secret: self.coordinates(),
            source,
        };
        if reason.scope() == Scope::Leaf {
            let names = self.names_with(&data, reason);
            return issue_leaf(&data, &names, self.config.lifetimes, now).map_err(failed);
        }
        if served.is_some_and(|served| served.is_valid_at(now)) {
            self.not_too_soon(reason)?;
        }
        let mut issued = issue_all(&self.config.names, self.config.lifetimes, now).map_err(failed)?;
        let before = [
            data.ca_crt.unwrap_or_default(),
            served.map(|served| served.bundle().pem().to_vec()).unwrap_or_default(),
        ];
        let bundle = issued.ca_crt.as_deref().map(CaBundle::from_pem);
        if let Some(Ok(bundle)) = bundle {
            issued.ca_crt = Some(bundle.with(&before.join(&b'\n'), now).pem().to_vec());
        }
        Ok(issued)
    }

    /// Notes that this replica makes an authority, unless it did so a moment ago.
    fn not_too_soon(&self, reason: Reason) -> Result<(), AuthorityError> {
        let interval = short_of(AUTHORITY_EVERY, self.config.lifetimes.ca / 6);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_some_and(|made| made.elapsed() < interval) {
            let secret = self.coordinates();
            return Err(AuthorityError::TooSoon { secret, reason });
        }
        *made = Some(Instant::now());
        Ok(())
    }

    /// Our names, and those of a leaf that only lacks some: while an upgrade changes the names, old and new replicas
    /// would otherwise replace each other's leaf for ever.
    fn names_with(&self, data: &SecretData, reason: Reason) -> Vec<San> {
        let mut names = self.config.names.clone();
        if reason == Reason::WrongNames {
            let kept = data.tls_crt.as_deref().map(names_of).unwrap_or_default();
            names.extend(kept.into_iter().filter(|name| !self.config.names.contains(name)));
        }
        names
    }

    fn empty(&self) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(self.config.secret.clone()),
                namespace: Some(self.config.namespace.clone()),
                labels: Some(self.config.labels.iter().cloned().collect()),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            ..Secret::default()
        }
    }

    async fn read(&self) -> Result<Option<Secret>, AuthorityError> {
        let read = self.secrets.get_opt(&self.config.secret).await;
        read.map_err(|source| self.api_error("reading", source))
    }

    fn api_error(&self, action: &'static str, source: kube::Error) -> AuthorityError {
        AuthorityError::Api {
            action,
            secret: self.coordinates(),
            source: Box::new(source),
        }
    }

    fn coordinates(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.secret)
    }

    /// Serves from `secret` after making it fit.
    async fn serve(&self, secret: Option<Secret>, resolver: &Resolver) -> Result<Secret, AuthorityError> {
        let served = resolver.served();
        let secret = self.settle(secret, served.as_deref(), (self.config.clock)()).await?;
        let material = Material::try_from(&SecretData::from(&secret)).map_err(|source| AuthorityError::Material {
            secret: self.coordinates(),
            source,
        })?;
        resolver.offer(material);
        Ok(secret)
    }

    /// Follows the Secret for ever.
    async fn keep_serving(&self, resolver: &Resolver) {
        let mut events = pin!(watched(self.secrets.clone(), &self.config.secret));
        let mut backoff = Backoff::default();
        // What the Secret was when last seen; `None` until the first answer of the API server.
        let mut seen: Option<Option<Secret>> = None;
        let check_every = short_of(CHECK_EVERY, self.config.lifetimes.leaf / 30);
        let mut check_at = Instant::now() + check_every;
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(secret) => seen = Some(secret),
                    Err(source) => {
                        let secret = self.coordinates();
                        resolver.report(&AuthorityError::Watch { secret, source: Box::new(source) });
                        continue;
                    }
                },
                () = sleep_until(check_at) => {
                    check_at = Instant::now() + check_every;
                    if !self.is_due(seen.as_ref()) {
                        continue;
                    }
                }
            }
            let Some(secret) = seen.clone() else { continue };
            match self.serve(secret, resolver).await {
                Ok(secret) => {
                    backoff.reset();
                    seen = Some(Some(secret));
                }
                Err(problem) => {
                    resolver.report(&problem);
                    check_at = Instant::now() + backoff.delay();
                    // What the watch showed may be stale by now: look again.
                    if let Ok(secret) = self.read().await {
                        seen = Some(secret);
                    }
                }
            }
        }
    }

    /// Whether what was seen must not stay as it is.
    fn is_due(&self, seen: Option<&Option<Secret>>) -> bool {
        seen.is_some_and(|secret| {
            secret
                .as_ref()
                .is_none_or(|secret| needs_new(&secret.into(), &self.config.names, (self.config.clock)()).is_some())
        })
    }
}

/// `usual`, or `part` of a life if that is shorter.
fn short_of(usual: Duration, part: SignedDuration) -> Duration {
    Duration::try_from(part).map_or(usual, |part| part.min(usual))
}

impl Source for Authority {
    #[instrument(name = "certificates", skip_all, fields(secret = %self.coordinates()))]
    async fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.keep_serving(&resolver)).await;
    }
}
