//! Evaluates writes as the cluster would, without the cluster.
//!
//! ```text
//! documents       objects from files, directories and standard input
//! cluster_state   policies, WorkItems, namespaces, …: from documents, or loaded once from a live cluster
//! webhooks        the webhook configurations, and which requests match them
//! schema          the schemas of CustomResourceDefinitions: pruning, defaults, validation
//! write_request   one write: the object, the user, the operation
//! evaluator       evaluates one write request in the order of the API server
//! evaluation      the result
//! case            cases of `taskgate test`: a cluster state, requests, and the expected results
//! ```
//!
//! Decisions come from the server's own code: [`ClusterState`] implements [`taskgate_webhook::ClusterContext`], and
//! [`taskgate_webhook::evaluate`] runs over it. Only the API server around it is modelled here, and the end-to-end suite `offline`
//! compares the model with the real one.
//!
//! Imports `taskgate-webhook`, `taskgate-policy` and `taskgate-api`. Called by the binary. It reads files and, with `--live`, the
//! API server; it writes only the cases that `taskgate test --update` updates.

pub mod case;
pub mod cluster_state;
pub mod diff;
pub mod documents;
pub mod evaluation;
pub mod evaluator;
pub mod expression;
pub mod schema;
pub mod webhooks;
pub mod write_request;

pub use cluster_state::{ClusterState, ClusterStateOptions};
pub use documents::{Document, Documents, DuplicateField, SourceLocation, UnreadableDocument};
pub use evaluation::{Evaluation, WriteVerdict};
pub use evaluator::Evaluator;
pub use schema::Schemas;
pub use webhooks::InstalledWebhooks;
pub use write_request::{RequestDefaults, WriteRequest};
