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
use kube::{Api, Client};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{CertificateSourceError, watch_by_name};
use crate::{
    problem::CertificateProblem,
    renewal::check_provided,
    resolver::Resolver,
    secret::{CA_CRT, SecretData, TLS_CRT, TLS_KEY},
    x509::San,
};

/// How often a Secret is checked against the clock again: a refused one may become valid.
const CHECK_EVERY: Duration = Duration::from_mins(1);
/// How often files are read. Files are polled, because a file watch is lost when the kubelet swaps the symlink of a mounted Secret.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Offers `data` if it can be served now; otherwise reports the problem, and the served certificate stays.
fn offer(data: Option<&SecretData>, names: &[San], location: &str, resolver: &Resolver) {
    let data = data.ok_or(CertificateProblem::NoSecret);
    match data.and_then(|data| check_provided(data, names, Timestamp::now())) {
        Ok(certificate) => resolver.offer(certificate),
        Err(problem) => resolver.report_problem(&CertificateSourceError::Unusable {
            location: location.to_owned(),
            problem,
        }),
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

    /// Offers the certificates to `resolver` until `shutdown`, whatever fails.
    pub async fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.follow(&resolver)).await;
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
                        let location = self.location.clone();
                        resolver.report_problem(&CertificateSourceError::access("watching", location, source));
                        continue;
                    }
                },
                () = sleep_until(check_at) => {}
            }
            check_at = Instant::now() + CHECK_EVERY;
            if let Some(secret) = &seen {
                offer(secret.as_ref(), &self.names, &self.location, resolver);
            }
        }
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

    /// Offers the certificates to `resolver` until `shutdown`, whatever fails.
    pub async fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.follow(&resolver)).await;
    }

    async fn follow(&self, resolver: &Resolver) {
        let location = self.directory.display().to_string();
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.read().await {
                Ok(data) => offer(Some(&data), &self.names, &location, resolver),
                Err(problem) => resolver.report_problem(&problem),
            }
        }
    }

    /// The files, consistent with each other: read until two reads agree.
    async fn read(&self) -> Result<SecretData, CertificateSourceError> {
        let mut before = self.read_once().await?;
        loop {
            let now = self.read_once().await?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
    }

    async fn read_once(&self) -> Result<SecretData, CertificateSourceError> {
        Ok(SecretData {
            ca_crt: read(&self.directory.join(CA_CRT)).await?,
            ca_key: None,
            tls_crt: read(&self.directory.join(TLS_CRT)).await?,
            tls_key: read(&self.directory.join(TLS_KEY)).await?,
        })
    }
}

/// The file, if there is one.
async fn read(path: &Path) -> Result<Option<Vec<u8>>, CertificateSourceError> {
    match tokio::fs::read(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let location = path.display().to_string();
            Err(CertificateSourceError::access("reading", location, error))
        }
    }
}
