//! The certificate source for clusters without cert-manager: a self-signed authority in one Secret, shared by all replicas.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backon::BackoffBuilder as _;
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, instrument};

use super::{CertificateSourceError, watch_by_name};
use crate::{
    BACKOFF, LONGEST_DELAY,
    issue::{Lifetimes, issue_all, issue_leaf},
    problem::CertificateProblem,
    renewal::renewal_problem,
    resolver::Resolver,
    secret::SecretData,
    serving_certificate::ServingCertificate,
    x509::{CaBundle, CertificateChain, San},
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

    /// Offers the certificates to `resolver`, and renews them, until `shutdown`, whatever fails.
    #[instrument(name = "certificates", skip_all, fields(secret = %self.coordinates()))]
    pub async fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.follow(&resolver)).await;
    }

    /// Reads the Secret, and issues certificates unless it has good ones at `now`.
    pub async fn ensure(&self, now: Timestamp) -> Result<Secret, CertificateSourceError> {
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
    ) -> Result<Secret, CertificateSourceError> {
        let mut problem = CertificateProblem::NoSecret;
        for _ in 0..ATTEMPTS {
            found = match (self.problem(found.as_ref(), now), found) {
                (None, Some(secret)) => return Ok(secret),
                (found_problem, found) => {
                    problem = found_problem.unwrap_or(CertificateProblem::NoSecret);
                    let data = self.issue(found.as_ref(), served, problem, now)?;
                    self.replace(found, data, problem).await?
                }
            };
        }
        let location = self.location();
        Err(CertificateSourceError::Contended { location, problem })
    }

    /// Why `found` must be replaced.
    fn problem(&self, found: Option<&Secret>, now: Timestamp) -> Option<CertificateProblem> {
        let Some(secret) = found else {
            return Some(CertificateProblem::NoSecret);
        };
        renewal_problem(&secret.into(), &self.config.names, now)
    }

    /// Writes new certificates over exactly the Secret that was `found`. After a lost race, returns the winner's Secret, if it still
    /// exists.
    async fn replace(
        &self,
        found: Option<Secret>,
        data: SecretData,
        problem: CertificateProblem,
    ) -> Result<Option<Secret>, CertificateSourceError> {
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
                info!(secret = self.coordinates(), reason = %problem, "wrote new certificates");
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
        problem: CertificateProblem,
        now: Timestamp,
    ) -> Result<SecretData, CertificateSourceError> {
        let data = found.map(SecretData::from).unwrap_or_default();
        let failed = |source| CertificateSourceError::Issue {
            location: self.location(),
            source,
        };
        if !problem.is_of_authority() {
            let names = self.names_with(&data, problem);
            return issue_leaf(&data, &names, self.config.lifetimes, now).map_err(failed);
        }
        if served.is_some_and(|served| served.is_valid_at(now)) {
            self.limit_authorities(problem)?;
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
    fn limit_authorities(&self, problem: CertificateProblem) -> Result<(), CertificateSourceError> {
        let interval = min_of(ISSUE_AUTHORITY_EVERY, self.config.lifetimes.ca / 6);
        let mut issued_at = self.issued_at.lock().unwrap_or_else(PoisonError::into_inner);
        if issued_at.is_some_and(|at| at.elapsed() < interval) {
            let location = self.location();
            return Err(CertificateSourceError::TooSoon { location, problem });
        }
        *issued_at = Some(Instant::now());
        Ok(())
    }

    /// The configured names, and those of a leaf that only lacks some: while an upgrade changes the names, old and new replicas would
    /// otherwise replace each other's leaf forever.
    fn names_with(&self, data: &SecretData, problem: CertificateProblem) -> Vec<San> {
        let mut names = self.config.names.clone();
        if problem == CertificateProblem::WrongNames {
            let served = data.tls_crt.as_deref().and_then(CertificateChain::from_pem);
            let kept = served.map(|served| served.names).unwrap_or_default();
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

    async fn read(&self) -> Result<Option<Secret>, CertificateSourceError> {
        let read = self.secrets.get_opt(&self.config.secret).await;
        read.map_err(|source| self.api_error("reading", source))
    }

    fn api_error(&self, action: &'static str, source: kube::Error) -> CertificateSourceError {
        CertificateSourceError::access(action, self.location(), source)
    }

    /// `namespace/name` of the Secret.
    fn coordinates(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.secret)
    }

    fn location(&self) -> String {
        format!("Secret {}", self.coordinates())
    }

    /// Renews `secret` if necessary, and offers its certificate.
    async fn serve(&self, secret: Option<Secret>, resolver: &Resolver) -> Result<Secret, CertificateSourceError> {
        let served = resolver.served();
        let secret = self.renew(secret, served.as_deref(), (self.config.clock)()).await?;
        let certificate = ServingCertificate::try_from(&SecretData::from(&secret));
        let certificate = certificate.map_err(|problem| CertificateSourceError::Unusable {
            location: self.location(),
            problem,
        })?;
        resolver.offer(certificate);
        Ok(secret)
    }

    /// Follows the Secret forever.
    async fn follow(&self, resolver: &Resolver) {
        let mut events = pin!(watch_by_name(self.secrets.clone(), &self.config.secret));
        let mut backoff = BACKOFF.build();
        // The last read Secret; `None` until the first answer of the API server.
        let mut seen: Option<Option<Secret>> = None;
        let check_every = min_of(CHECK_EVERY, self.config.lifetimes.leaf / 30);
        let mut check_at = Instant::now() + check_every;
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(secret) => seen = Some(secret),
                    Err(source) => {
                        let location = self.location();
                        resolver.report_problem(&CertificateSourceError::access("watching", location, source));
                        continue;
                    }
                },
                () = sleep_until(check_at) => {
                    check_at = Instant::now() + check_every;
                    let problem = |secret: &Option<Secret>| self.problem(secret.as_ref(), (self.config.clock)());
                    if seen.as_ref().and_then(problem).is_none() {
                        continue;
                    }
                }
            }
            let Some(secret) = seen.clone() else { continue };
            match self.serve(secret, resolver).await {
                Ok(secret) => {
                    backoff = BACKOFF.build();
                    seen = Some(Some(secret));
                }
                Err(problem) => {
                    resolver.report_problem(&problem);
                    check_at = Instant::now() + backoff.next().unwrap_or(LONGEST_DELAY);
                    // The watched Secret may be stale by now: read it again.
                    if let Ok(secret) = self.read().await {
                        seen = Some(secret);
                    }
                }
            }
        }
    }
}

/// `usual`, or `part` of a lifetime if that is shorter.
fn min_of(usual: Duration, part: SignedDuration) -> Duration {
    Duration::try_from(part).map_or(usual, |part| part.min(usual))
}
