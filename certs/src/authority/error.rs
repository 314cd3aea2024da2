//! Why a Secret cannot be brought into a state to serve from.

use kube::runtime::watcher;

use crate::{IssueError, MaterialError, Reason};

/// The Secret cannot be brought into a state to serve from.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A request to the API server failed.
    #[error("{action} Secret {secret}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// `namespace/name`.
        secret: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// The watch on the Secret failed.
    #[error("watching Secret {secret}")]
    Watch {
        /// `namespace/name`.
        secret: String,
        /// What came back.
        source: Box<watcher::Error>,
    },
    /// New certificates cannot be made.
    #[error("renewing the certificates in Secret {secret}")]
    Issue {
        /// `namespace/name`.
        secret: String,
        /// Why.
        source: IssueError,
    },
    /// The certificates pass the check and still cannot be served.
    #[error("serving from Secret {secret}")]
    Material {
        /// `namespace/name`.
        secret: String,
        /// Why.
        source: MaterialError,
    },
    /// A new authority is wanted again, so soon after the last one that something else must be wrong.
    #[error(
        "Secret {secret} wants another authority already: {reason}. Do the clocks of all replicas agree? It is made in a while"
    )]
    TooSoon {
        /// `namespace/name`.
        secret: String,
        /// What is wrong with it.
        reason: Reason,
    },
    /// Other replicas kept winning the race with certificates that are bad as well.
    #[error("Secret {secret} stays bad although it was replaced again and again: {reason}")]
    Contended {
        /// `namespace/name`.
        secret: String,
        /// What is wrong with it.
        reason: Reason,
    },
}
