//! Certificates that somebody else provides, such as cert-manager: read, checked, never written.

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

use crate::{
    CA_CRT, Material, MaterialError, Reason, Resolver, San, SecretData, Source, TLS_CRT, TLS_KEY, unfit,
    watched::watched,
};

/// How often a Secret that was refused is held against the clock again: it may become valid.
const CHECK_EVERY: Duration = Duration::from_mins(1);
/// How often files are read. Only bytes tell: a watch is lost when the kubelet swaps the link that they lie behind (C3).
const READ_EVERY: Duration = Duration::from_secs(1);

/// What is provided cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// It is not fit.
    #[error("the certificates in {place} cannot be served: {reason}")]
    Unfit {
        /// The Secret or the folder.
        place: String,
        /// Why.
        reason: Reason,
    },
    /// It passes the check and still cannot be served.
    #[error("serving from {place}")]
    Material {
        /// The Secret or the folder.
        place: String,
        /// Why.
        source: MaterialError,
    },
    /// The watch on the Secret failed.
    #[error("watching {place}")]
    Watch {
        /// The Secret.
        place: String,
        /// What came back.
        source: Box<watcher::Error>,
    },
    /// The files cannot be read.
    #[error("reading {place}")]
    Read {
        /// The file.
        place: String,
        /// What came back.
        source: io::Error,
    },
}

/// Offers `data` if it is fit at `now`; else tells what is wrong with it. What is served stays.
fn offer(data: Option<&SecretData>, names: &[San], place: &str, now: Timestamp, resolver: &Resolver) {
    let place = || place.to_owned();
    let outcome = match data.map(|data| (data, unfit(data, names, now))) {
        None => Err(GivenError::Unfit {
            place: place(),
            reason: Reason::NoSecret,
        }),
        Some((_, Some(reason))) => Err(GivenError::Unfit { place: place(), reason }),
        Some((data, None)) => {
            Material::try_from(data).map_err(|source| GivenError::Material { place: place(), source })
        }
    };
    match outcome {
        Ok(material) => resolver.offer(material),
        Err(problem) => resolver.report(&problem),
    }
}

/// A Secret that somebody else writes: `tls.crt`, `tls.key` and `ca.crt`, as cert-manager does.
///
/// RBAC: `get`, `list`, `watch` on the Secret by resource name.
pub struct GivenSecret {
    secrets: Api<Secret>,
    name: String,
    place: String,
    names: Vec<San>,
}

impl GivenSecret {
    /// The Secret `name` in `namespace`, whose certificate must be valid for all of `names`.
    pub fn new(client: Client, namespace: &str, name: &str, names: Vec<San>) -> Self {
        Self {
            secrets: Api::namespaced(client, namespace),
            name: name.to_owned(),
            place: format!("Secret {namespace}/{name}"),
            names,
        }
    }

    async fn keep_serving(&self, resolver: &Resolver) {
        let mut events = pin!(watched(self.secrets.clone(), &self.name));
        let mut seen: Option<Option<SecretData>> = None;
        let mut check_at = Instant::now() + CHECK_EVERY;
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(secret) => seen = Some(secret.as_ref().map(SecretData::from)),
                    Err(source) => {
                        let (place, source) = (self.place.clone(), Box::new(source));
                        resolver.report(&GivenError::Watch { place, source });
                        continue;
                    }
                },
                () = sleep_until(check_at) => {}
            }
            check_at = Instant::now() + CHECK_EVERY;
            if let Some(secret) = &seen {
                offer(secret.as_ref(), &self.names, &self.place, Timestamp::now(), resolver);
            }
        }
    }
}

impl Source for GivenSecret {
    async fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.keep_serving(&resolver)).await;
    }
}

/// A folder with `tls.crt`, `tls.key` and `ca.crt`, such as a mounted Secret.
pub struct GivenFiles {
    folder: PathBuf,
    names: Vec<San>,
}

impl GivenFiles {
    /// The files in `folder`, whose certificate must be valid for all of `names`.
    pub fn new(folder: PathBuf, names: Vec<San>) -> Self {
        Self { folder, names }
    }

    async fn keep_serving(&self, resolver: &Resolver) {
        let place = self.folder.display().to_string();
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.read().await {
                Ok(data) => offer(Some(&data), &self.names, &place, Timestamp::now(), resolver),
                Err(problem) => resolver.report(&problem),
            }
        }
    }

    /// The files, all from the same moment: read until two reads agree.
    async fn read(&self) -> Result<SecretData, GivenError> {
        let mut before = self.read_once().await?;
        loop {
            let now = self.read_once().await?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
    }

    async fn read_once(&self) -> Result<SecretData, GivenError> {
        Ok(SecretData {
            ca_crt: read(&self.folder.join(CA_CRT)).await?,
            ca_key: None,
            tls_crt: read(&self.folder.join(TLS_CRT)).await?,
            tls_key: read(&self.folder.join(TLS_KEY)).await?,
        })
    }
}

/// The file, if there is one.
async fn read(path: &Path) -> Result<Option<Vec<u8>>, GivenError> {
    match tokio::fs::read(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(GivenError::Read {
            place: path.display().to_string(),
            source,
        }),
    }
}

impl Source for GivenFiles {
    async fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.keep_serving(&resolver)).await;
    }
}
