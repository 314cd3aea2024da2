//! The sources of certificates: the self-signed authority in a Secret, and certificates that another component provides.
//!
//! Imports `resolver`, `renewal`, `issue` and the certificate types. Called by the binary, which runs one source; `inject` also
//! watches objects by [`watch_by_name`].

mod authority;
mod provided;

use std::{error::Error, fmt::Debug};

use backon::BackoffBuilder as _;
use futures::{Stream, StreamExt as _, stream};
use kube::{
    Api, Resource,
    runtime::watcher::{self, watch_object},
};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

pub use authority::{Authority, AuthorityConfig};
pub use provided::{ProvidedFiles, ProvidedSecret};

use crate::{BACKOFF, LONGEST_DELAY, issue::IssueError, problem::CertificateProblem};

/// Certificates cannot be renewed or served. A location is a file, a directory, or `Secret namespace/name`.
#[derive(Debug, thiserror::Error)]
pub enum CertificateSourceError {
    /// They cannot be read, watched or written.
    #[error("{action} {location}")]
    Access {
        /// The action that failed.
        action: &'static str,
        /// Their location.
        location: String,
        /// The error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// They have a problem.
    #[error("the certificates in {location} cannot be served: {problem}")]
    Unusable {
        /// Their location.
        location: String,
        /// The problem.
        problem: CertificateProblem,
    },
    /// New certificates cannot be issued.
    #[error("renewing the certificates in {location}")]
    Issue {
        /// Their location.
        location: String,
        /// Why.
        source: IssueError,
    },
    /// A new authority is needed so soon after the last one that something else must be wrong.
    #[error(
        "{location} needs another authority already: {problem}. Do the clocks of all replicas agree? It will be issued later"
    )]
    TooSoon {
        /// Their location.
        location: String,
        /// The problem with it.
        problem: CertificateProblem,
    },
    /// Other replicas repeatedly won the race, also with bad certificates.
    #[error("{location} is still bad after repeated replacement: {problem}")]
    Contended {
        /// Their location.
        location: String,
        /// The problem with it.
        problem: CertificateProblem,
    },
}

impl CertificateSourceError {
    fn access(action: &'static str, location: String, source: impl Error + Send + Sync + 'static) -> Self {
        let source = Box::new(source);
        Self::Access {
            action,
            location,
            source,
        }
    }
}

/// A stream of the object `name`: `None` while it does not exist. Never ends.
///
/// After an error it waits and reads the object again, so that an event shows the recovery; a watch that is merely resumed
/// delivers nothing until the next change.
pub(crate) fn watch_by_name<K>(
    api: Api<K>,
    name: &str,
) -> impl Stream<Item = Result<Option<K>, watcher::Error>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let name = name.to_owned();
    let open = move || watch_object(api.clone(), &name).boxed();
    let state = (open(), open, BACKOFF.build(), false);
    stream::unfold(state, |(mut events, open, mut backoff, failed)| async move {
        if failed {
            sleep(backoff.next().unwrap_or(LONGEST_DELAY)).await;
            events = open();
        }
        let event = events.next().await?;
        let failed = event.is_err();
        if !failed {
            backoff = BACKOFF.build();
        }
        Some((event, (events, open, backoff, failed)))
    })
}
