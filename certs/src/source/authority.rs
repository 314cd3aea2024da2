//! The certificate source for clusters without cert-manager: a self-signed authority in one Secret, shared by all replicas.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::watcher,
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, instrument};

use super::{CertificateSource, watch_by_name};
use crate::{
    backoff::Backoff,
    bundle::CaBundle,
    issue::{IssueError, Lifetimes, issue_all, issue_leaf},
    renewal::{CertificateProblem, RenewalScope, renewal_problem},
    resolver::Resolver,
    san::San,
    secret::SecretData,
    serving_certificate::{ServingCertificate, ServingCertificateError},
    x509::names_of,
};

/// How often the certificates are checked against the wall clock, because timers stop while a machine is suspended (C4). More often
/// if they live for less than half an hour.
const CHECK_EVERY: Duration = Duration::from_mins(1);
/// A replica with a good certificate issues a new authority at most this often. Otherwise two replicas whose clocks disagree would
/// replace each other's authority forever.
const ISSUE_AUTHORITY_EVERY: Duration = Duration::from_mins(1);
/// How many lost races against other replicas count as an error.
const ATTEMPTS: usize = 5;
const FIELD_MANAGER: &str = "taskgate-certs";
const SECRET_TYPE: &str = "kubernetes.io/tls";

/// The Secret of the authority, and the names that it certifies.
#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The name of the Secret.
    pub secret: String,
    /// The names that the API server and others dial, the API server's first.
    pub names: Vec<San>,
    /// The labels of a new Secret.
    pub labels: Vec<(String, String)>,
    /// The lifetimes of issued certificates.
    pub lifetimes: Lifetimes,
    /// The wall clock: [`Timestamp::now`], except in tests of clock jumps.
    pub clock: fn() -> Timestamp,
}

/// The certificates in the Secret cannot be renewed or served.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A request to the API server failed.
    #[error("{action} Secret {secret}")]
    Api {
        /// The action that failed.
        action: &'static str,
        /// `namespace/name`.
        secret: String,
        /// The error.
        source: Box<kube::Error>,
    },
    /// The watch on the Secret failed.
    #[error("watching Secret {secret}")]
    Watch {
        /// `namespace/name`.
        secret: String,
        /// The error.
        source: Box<watcher::Error>,
    },
    /// New certificates cannot be issued.
    #[error("renewing the certificates in Secret {secret}")]
    Issue {
        /// `namespace/name`.
        secret: String,
        /// Why.
        source: IssueError,
    },
    /// The certificates pass the check and still cannot be served.
    #[error("serving from Secret {secret}")]
    Certificate {
        /// `namespace/name`.
        secret: String,
        /// Why.
        source: ServingCertificateError,
    },
    /// A new authority is needed so soon after the last one that something else must be wrong.
    #[error(
        "Secret {secret} needs another authority already: {reason}. Do the clocks of all replicas agree? It will be issued later"
    )]
    TooSoon {
        /// `namespace/name`.
        secret: String,
        /// The problem with it.
        reason: CertificateProblem,
    },
    /// Other replicas repeatedly won the race, also with bad certificates.
    #[error("Secret {secret} is still bad after repeated replacement: {reason}")]
    Contended {
        /// `namespace/name`.
        secret: String,
        /// The problem with it.
        reason: CertificateProblem,
    },
}

/// A self-signed authority in a Secret.
///
/// Replicas that find no Secret, or a bad one, at the same time end up with the same certificates: the first create, or the first
/// update of a resourceVersion, wins; the others read it. Other entries, labels and annotations of the Secret stay. A new
/// authority is added before the old ones that are still valid, in the Secret and so in the published bundle: every served
/// certificate stays trusted. While idle it has one watch and writes nothing.
///
/// RBAC: `get`, `list`, `watch`, `update` on the Secret by resource name, `create` on Secrets of the namespace.
pub struct Authority {
    secrets: Api<Secret>,
    config: AuthorityConfig,
    /// When this replica issued the last authority.
    issued_at: Mutex<Option<Instant>>,
}

impl Authority {
    /// The authority that `config` describes.
    pub fn new(client: Client, config: AuthorityConfig) -> Self {
        let secrets = Api::namespaced(client, &config.namespace);
        Self {
            secrets,
            config,
            issued_at: Mutex::new(None),
        }
    }

    /// Reads the Secret, and issues certificates unless it has good ones at `now`.
    pub async fn ensure(&self, now: Timestamp) -> Result<Secret, AuthorityError> {
        let found = self.read().await?;
        self.renew(found, None, now).await
    }

    /// Renews `found`, or what another replica wrote in its place, until it is good at `now`. Clients that trust `served` keep trusting
    /// it.
    async fn renew(
        &self,
        mut found: Option<Secret>,
        served: Option<&ServingCertificate>,
        now: Timestamp,
    ) -> Result<Secret, AuthorityError> {
        let mut reason = CertificateProblem::NoSecret;
        for _ in 0..ATTEMPTS {
            let problem = match &found {
                None => Some(CertificateProblem::NoSecret),
                Some(secret) => renewal_problem(&SecretData::from(secret), &self.config.names, now),
            };
            found = match (problem, found) {
                (None, Some(secret)) => return Ok(secret),
                (problem, found) => {
                    reason = problem.unwrap_or(CertificateProblem::NoSecret);
                    let data = self.issue(found.as_ref(), served, reason, now)?;
                    self.replace(found, data, reason).await?
                }
            };
        }
        let secret = self.coordinates();
        Err(AuthorityError::Contended { secret, reason })
    }

    /// Writes new certificates over exactly the Secret that was `found`. After a lost race, returns the winner's Secret, if it still
    /// exists.
    async fn replace(
        &self,
        found: Option<Secret>,
        data: SecretData,
        reason: CertificateProblem,
    ) -> Result<Option<Secret>, AuthorityError> {
        let post = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        // 409: another replica was faster. 404: the Secret was deleted meanwhile.
        let exists = found.is_some();
        let lost = |code| code == 409 || (exists && code == 404);
        let mut secret = found.unwrap_or_else(|| self.empty());
        data.write_to(secret.data.get_or_insert_default());
        // An update carries the resourceVersion that was read: it fails if the Secret changed meanwhile.
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
        served: Option<&ServingCertificate>,
        reason: CertificateProblem,
        now: Timestamp,
    ) -> Result<SecretData, AuthorityError> {
        let data = found.map(SecretData::from).unwrap_or_default();
        let failed = |source| AuthorityError::Issue {
            secret: self.coordinates(),
            source,
        };
        if reason.scope() == RenewalScope::Leaf {
            let names = self.names_with(&data, reason);
            return issue_leaf(&data, &names, self.config.lifetimes, now).map_err(failed);
        }
        if served.is_some_and(|served| served.is_valid_at(now)) {
            self.limit_authorities(reason)?;
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

    /// Records that this replica issues an authority; errors if it issued the last one too recently.
    fn limit_authorities(&self, reason: CertificateProblem) -> Result<(), AuthorityError> {
        let interval = min_of(ISSUE_AUTHORITY_EVERY, self.config.lifetimes.ca / 6);
        let mut issued_at = self.issued_at.lock().unwrap_or_else(PoisonError::into_inner);
        if issued_at.is_some_and(|at| at.elapsed() < interval) {
            let secret = self.coordinates();
            return Err(AuthorityError::TooSoon { secret, reason });
        }
        *issued_at = Some(Instant::now());
        Ok(())
    }

    /// The configured names, and those of a leaf that only lacks some: while an upgrade changes the names, old and new replicas would
    /// otherwise replace each other's leaf forever.
    fn names_with(&self, data: &SecretData, reason: CertificateProblem) -> Vec<San> {
        let mut names = self.config.names.clone();
        if reason == CertificateProblem::WrongNames {
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

    /// Renews `secret` if necessary, and offers its certificate.
    async fn serve(&self, secret: Option<Secret>, resolver: &Resolver) -> Result<Secret, AuthorityError> {
        let served = resolver.served();
        let secret = self.renew(secret, served.as_deref(), (self.config.clock)()).await?;
        let certificate =
            ServingCertificate::try_from(&SecretData::from(&secret)).map_err(|source| AuthorityError::Certificate {
                secret: self.coordinates(),
                source,
            })?;
        resolver.offer(certificate);
        Ok(secret)
    }

    /// Follows the Secret forever.
    async fn follow(&self, resolver: &Resolver) {
        let mut events = pin!(watch_by_name(self.secrets.clone(), &self.config.secret));
        let mut backoff = Backoff::default();
        // The last read Secret; `None` until the first answer of the API server.
        let mut seen: Option<Option<Secret>> = None;
        let check_every = min_of(CHECK_EVERY, self.config.lifetimes.leaf / 30);
        let mut check_at = Instant::now() + check_every;
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(secret) => seen = Some(secret),
                    Err(source) => {
                        let secret = self.coordinates();
                        resolver.report_problem(&AuthorityError::Watch { secret, source: Box::new(source) });
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
                    resolver.report_problem(&problem);
                    check_at = Instant::now() + backoff.delay();
                    // The watched Secret may be stale by now: read it again.
                    if let Ok(secret) = self.read().await {
                        seen = Some(secret);
                    }
                }
            }
        }
    }

    /// Whether the last read Secret needs a renewal.
    fn is_due(&self, seen: Option<&Option<Secret>>) -> bool {
        seen.is_some_and(|secret| {
            secret.as_ref().is_none_or(|secret| {
                renewal_problem(&secret.into(), &self.config.names, (self.config.clock)()).is_some()
            })
        })
    }
}

/// `usual`, or `part` of a lifetime if that is shorter.
fn min_of(usual: Duration, part: SignedDuration) -> Duration {
    Duration::try_from(part).map_or(usual, |part| part.min(usual))
}

impl CertificateSource for Authority {
    #[instrument(name = "certificates", skip_all, fields(secret = %self.coordinates()))]
    async fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.follow(&resolver)).await;
    }
}
