//! Certificates that another component provides, such as cert-manager: read and checked, never written.

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, runtime::watcher};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{CertificateSource, watch_by_name};
use crate::{
    renewal::{CertificateProblem, serving_problem},
    resolver::Resolver,
    san::San,
    secret::{CA_CRT, SecretData, TLS_CRT, TLS_KEY},
    serving_certificate::{ServingCertificate, ServingCertificateError},
};

/// How often a Secret is checked against the clock again: a refused one may become valid.
const CHECK_EVERY: Duration = Duration::from_mins(1);
/// How often files are read. Files are polled, because a file watch is lost when the kubelet swaps the symlink of a mounted Secret.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The provided certificates cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ProvidedCertificateError {
    /// They have a problem.
    #[error("the certificates in {location} cannot be served: {reason}")]
    Unusable {
        /// The Secret or the directory.
        location: String,
        /// Why.
        reason: CertificateProblem,
    },
    /// They pass the check and still cannot be served.
    #[error("serving from {location}")]
    Certificate {
        /// The Secret or the directory.
        location: String,
        /// Why.
        source: ServingCertificateError,
    },
    /// The watch on the Secret failed.
    #[error("watching {location}")]
    Watch {
        /// The Secret.
        location: String,
        /// The error.
        source: Box<watcher::Error>,
    },
    /// The files cannot be read.
    #[error("reading {location}")]
    Read {
        /// The file.
        location: String,
        /// The error.
        source: io::Error,
    },
}

/// Offers `data` if it can be served at `now`; otherwise reports the problem, and the served certificate stays.
fn offer(data: Option<&SecretData>, names: &[San], location: &str, now: Timestamp, resolver: &Resolver) {
    let location = || location.to_owned();
    let outcome = match data.map(|data| (data, serving_problem(data, names, now))) {
        None => Err(ProvidedCertificateError::Unusable {
            location: location(),
            reason: CertificateProblem::NoSecret,
        }),
        Some((_, Some(reason))) => Err(ProvidedCertificateError::Unusable {
            location: location(),
            reason,
        }),
        Some((data, None)) => {
            ServingCertificate::try_from(data).map_err(|source| ProvidedCertificateError::Certificate {
                location: location(),
                source,
            })
        }
    };
    match outcome {
        Ok(certificate) => resolver.offer(certificate),
        Err(problem) => resolver.report_problem(&problem),
    }
}

/// A Secret that another component writes: `tls.crt`, `tls.key` and `ca.crt`, as cert-manager does.
///
/// RBAC: `get`, `list`, `watch` on the Secret by resource name.
pub struct ProvidedSecret {
    secrets: Api<Secret>,
    name: String,
    location: String,
    names: Vec<San>,
}

impl ProvidedSecret {
    /// The Secret `name` in `namespace`, whose certificate must be valid for all of `names`.
    pub fn new(client: Client, namespace: &str, name: &str, names: Vec<San>) -> Self {
        Self {
            secrets: Api::namespaced(client, namespace),
            name: name.to_owned(),
            location: format!("Secret {namespace}/{name}"),
            names,
        }
    }

    async fn follow(&self, resolver: &Resolver) {
        let mut events = pin!(watch_by_name(self.secrets.clone(), &self.name));
        let mut seen: Option<Option<SecretData>> = None;
        let mut check_at = Instant::now() + CHECK_EVERY;
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(secret) => seen = Some(secret.as_ref().map(SecretData::from)),
                    Err(source) => {
                        let (location, source) = (self.location.clone(), Box::new(source));
                        resolver.report_problem(&ProvidedCertificateError::Watch { location, source });
                        continue;
                    }
                },
                () = sleep_until(check_at) => {}
            }
            check_at = Instant::now() + CHECK_EVERY;
            if let Some(secret) = &seen {
                offer(secret.as_ref(), &self.names, &self.location, Timestamp::now(), resolver);
            }
        }
    }
}

impl CertificateSource for ProvidedSecret {
    async fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.follow(&resolver)).await;
    }
}

/// A directory with `tls.crt`, `tls.key` and `ca.crt`, such as a mounted Secret.
pub struct ProvidedFiles {
    directory: PathBuf,
    names: Vec<San>,
}

impl ProvidedFiles {
    /// The files in `directory`, whose certificate must be valid for all of `names`.
    pub fn new(directory: PathBuf, names: Vec<San>) -> Self {
        Self { directory, names }
    }

    async fn follow(&self, resolver: &Resolver) {
        let location = self.directory.display().to_string();
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.read().await {
                Ok(data) => offer(Some(&data), &self.names, &location, Timestamp::now(), resolver),
                Err(problem) => resolver.report_problem(&problem),
            }
        }
    }

    /// The files, consistent with each other: read until two reads agree.
    async fn read(&self) -> Result<SecretData, ProvidedCertificateError> {
        let mut before = self.read_once().await?;
        loop {
            let now = self.read_once().await?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
    }

    async fn read_once(&self) -> Result<SecretData, ProvidedCertificateError> {
        Ok(SecretData {
            ca_crt: read(&self.directory.join(CA_CRT)).await?,
            ca_key: None,
            tls_crt: read(&self.directory.join(TLS_CRT)).await?,
            tls_key: read(&self.directory.join(TLS_KEY)).await?,
        })
    }
}

/// The file, if there is one.
async fn read(path: &Path) -> Result<Option<Vec<u8>>, ProvidedCertificateError> {
    match tokio::fs::read(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ProvidedCertificateError::Read {
            location: path.display().to_string(),
            source,
        }),
    }
}

impl CertificateSource for ProvidedFiles {
    async fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.follow(&resolver)).await;
    }
}
