//! taskgate's serving certificate: where it comes from, how it is served, and how the API server learns to trust it.
//!
//! ```text
//! source     where certificates come from: Authority (a self-signed authority in a Secret), or ProvidedSecret and
//!            ProvidedFiles (cert-manager)
//! issue      makes authorities and serving certificates
//! problem    why certificates must be replaced or cannot be served
//! renewal    whether a certificate must be renewed or cannot be served: pure functions of the Secret and the time
//! resolver   hands rustls the certificate: the last good one, until the API server trusts a newer one
//! inject     follows the webhook configurations, and writes the caBundle into them
//! ```
//!
//! A source offers each good certificate to the [`Resolver`]. With [`Authority`], the [`Injector`] writes its CA into
//! the webhook configurations; with the other sources it only reads them. [`ClientAuthority`] verifies the certificates of
//! clients. [`CertificateChain`] examines a certificate without its key.
//!
//! Imports no other crate of the workspace. Called by `taskgate-webhook`, which serves with the resolver, and by the binary, which
//! wires the parts.

mod client_authority;
mod inject;
mod issue;
mod problem;
mod renewal;
mod resolver;
mod secret;
mod serving_certificate;
mod source;
mod x509;

use std::time::Duration;

use backon::ExponentialBuilder;

pub use client_authority::{ClientAuthority, ClientAuthorityError};
pub use inject::{BundleManager, CA_FIELD_MANAGER, Injection, InjectionState, Injector};
pub use issue::{IssueError, Lifetimes, issue_all, issue_leaf};
pub use problem::CertificateProblem;
pub use renewal::{renewal_problem, serving_problem};
pub use resolver::{CertificateHealth, Resolver, WebhookConfigurationKind};
pub use secret::{CA_CRT, CA_KEY, SecretData, TLS_CRT, TLS_KEY};
pub use serving_certificate::ServingCertificate;
pub use source::{Authority, AuthorityConfig, CertificateSourceError, ProvidedFiles, ProvidedSecret};
pub use x509::{CaBundle, CertificateChain, InvalidSan, San, Validity};

/// The longest delay between retries.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// The delays between retries: from 250 ms, so that an API server that recovers is noticed quickly and has little load before.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(250))
    .with_max_delay(LONGEST_DELAY)
    .without_max_times();

/// An error and its sources as one text, each part once.
fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
