//! The source of the serving certificate that the flags name.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use kube::Client;
use taskgate_api::keys;
use taskgate_certs::{Authority, AuthorityConfig, Lifetimes, ProvidedFiles, ProvidedSecret, Resolver, San};
use tokio_util::sync::CancellationToken;

use super::args::{CertMode, ServeArgs};

/// The task that keeps the certificate of `resolver` up to date until `shutdown`.
pub(super) fn run(
    args: &ServeArgs,
    client: Client,
    resolver: Arc<Resolver>,
    shutdown: CancellationToken,
) -> Result<BoxFuture<'static, ()>> {
    let of_service = San::of_service(&args.service, &args.namespace).context("--service")?;
    // A given certificate needs only the one name of the Service that the API server dials.
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
            Authority::new(client, config).run(resolver, shutdown).boxed()
        }
        CertMode::CertManager => {
            let source = ProvidedSecret::new(client, &args.namespace, &args.cert_secret, dialled());
            source.run(resolver, shutdown).boxed()
        }
        CertMode::Files => {
            let folder = args.cert_dir.clone().context("--cert-dir is missing")?;
            ProvidedFiles::new(folder, dialled()).run(resolver, shutdown).boxed()
        }
    })
}
