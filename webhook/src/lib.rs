//! taskgate's admission server: answers `AdmissionReview`s over TLS.
//!
//! ```text
//! registration   which requests the API server sends: the ENDPOINTS table feeds the webhook configurations and the router
//! listener       a port: connections, TLS, limits per peer, shutdown stages
//! admission      one review: read the body, decode, evaluate, encode
//! cluster        the inputs of a decision: the cache first, then live reads
//! admin          /livez, /readyz, /metrics, on a port of its own
//! server         binds the ports, runs everything and the watches of the cache, shuts down
//! ```
//!
//! The server has no side effects: it reads the cluster and writes nothing. `taskgate-policy` decides; `taskgate-certs` provides
//! the certificate. [`evaluate`] needs no server: over another [`ClusterContext`] than the live cluster it makes the same
//! decision offline.
//!
//! Imports `taskgate-api`, `taskgate-policy`, `taskgate-cache` and `taskgate-certs`. Called by the binary, which wires it, and by
//! `taskgate-offline`.

mod admin;
mod admission;
mod cluster;
mod config;
mod listener;
mod metrics;
mod rate_limiter;
mod registration;
mod server;

pub use admission::{
    AccessDecision, ClusterContext, ClusterReadError, DecodeError, ItemState, NamespaceLabels, ObjectKind,
    ReviewRequest, ReviewedTask, evaluate, router,
};
pub use cluster::check_access;
pub use config::{ConfigError, ServerConfig, ServerLimits, ShutdownConfig};
pub use listener::{BindError, Lifecycle, Listener, ShutdownStage};
pub use metrics::ServerMetrics;
pub use registration::{
    ClientTarget, ConfigurationName, FailurePolicy, InvalidName, InvalidTimeout, Registration, TimeoutSeconds, rules,
};
pub use server::{Addresses, Dependencies, METRICS_PREFIX, ServeError, Server};
