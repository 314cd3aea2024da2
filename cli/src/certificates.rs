//! Which source of certificates the flags ask for.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use kube::Client;
use taskgate_api::keys;
use taskgate_certs::{
    Authority, AuthorityConfig, BundleManager, CertificateSource as _, Lifetimes, ProvidedFiles, ProvidedSecret,
    Resolver, San,
};
use tokio_util::sync::CancellationToken;

use crate::args::{CertMode, ServeArgs};

/// One of the sources.
pub(crate) enum Certificates {
    SelfSigned(Authority),
    Secret(ProvidedSecret),
    Files(ProvidedFiles),
}

impl Certificates {
    /// Runs until `shutdown`.
    pub(crate) async fn run(self, resolver: Arc<Resolver>, shutdown: CancellationToken) {
        match self {
            Self::SelfSigned(source) => Box::pin(source.run(resolver, shutdown)).await,
            Self::Secret(source) => source.run(resolver, shutdown).await,
            Self::Files(source) => source.run(resolver, shutdown).await,
        }
    }
}

/// The source that `args` ask for.
pub(crate) fn source(args: &ServeArgs, client: Client) -> Result<Certificates> {
    let of_service = San::of_service(&args.service, &args.namespace).context("--service")?;
    // Of the Service's names a certificate that is given must have the one that the API server dials.
    let dialled = || of_service.iter().take(1).chain(&args.cert_names).cloned().collect();
    Ok(match args.cert_mode {
        CertMode::SelfSigned => {
            let config = AuthorityConfig {
                namespace: args.namespace.clone(),
                secret: args.cert_secret.clone(),
                names: of_service.iter().chain(&args.cert_names).cloned().collect(),
                labels: vec![(keys::PART_OF.to_owned(), keys::PART_OF_TASKGATE.to_owned())],
                lifetimes: Lifetimes {
                    ca: args.ca_lifetime,
                    leaf: args.cert_lifetime,
                },
                clock: Timestamp::now,
            };
            Certificates::SelfSigned(Authority::new(client, config))
        }
        CertMode::CertManager => {
            let source = ProvidedSecret::new(client, &args.namespace, &args.cert_secret, dialled());
            Certificates::Secret(source)
        }
        CertMode::Files => {
            let folder = args.cert_dir.clone().context("--cert-dir is missing")?;
            Certificates::Files(ProvidedFiles::new(folder, dialled()))
        }
    })
}

/// Who keeps the caBundle.
pub(crate) fn caretaker(args: &ServeArgs) -> BundleManager {
    match args.cert_mode {
        CertMode::SelfSigned => BundleManager::Taskgate,
        CertMode::CertManager | CertMode::Files => BundleManager::External,
    }
}
