//! taskgate's admission server: `AdmissionReview`s in, verdicts out, over TLS.
//!
//! ```text
//! listener ─→ connection ─→ routes::answer ─→ body::read, decode
//!                                          ─→ judge ─→ facts::gather ←─ caches, fresh reads
//!                                                   ─→ taskgate_policy::govern, decide
//!                                          ─→ review::encode
//! admin: /livez /readyz /metrics, on a port of its own
//! ```
//!
//! It has no side effects: it reads the cluster and writes nothing. What is decided is the business of
//! `taskgate-policy`; which certificate is served is that of `taskgate-certs`. Which requests come at all stands in
//! [`rules`], from which both the [`Registration`] and the router are built.
//!
//! [`judge()`] needs no server: over other [`Surroundings`] than the cluster it gives the same verdict offline.
//!
//! Depends on `taskgate-api`, `taskgate-policy` and `taskgate-certs`. Called by the binary, which wires it, and by
//! `taskgate-offline`.

mod activity;
mod admin;
mod body;
mod caches;
mod cancellation;
mod cluster;
mod config;
mod connection;
mod facts;
mod fresh;
mod guard;
mod judge;
mod kueue;
mod lifecycle;
mod listener;
mod metrics;
mod off_reactor;
mod peers;
mod probe;
mod rate;
mod readiness;
mod refusal;
mod registration;
mod review;
mod routes;
pub mod rules;
mod scrapers;
mod serve;
mod weight;

pub use caches::{CacheReport, Caches};
pub use cancellation::Permission;
pub use cluster::Cluster;
pub use config::{ConfigError, Limits, ServerConfig, ShutdownConfig};
pub use facts::{Ask, FactError, Labels, Rivals, Surroundings};
pub use fresh::may;
pub use judge::judge;
pub use kueue::QueueQuestion;
pub use lifecycle::{Lifecycle, Stage};
pub use listener::{BindError, Listener};
pub use metrics::Metrics;
pub use readiness::{Check, Readiness};
pub use refusal::Refusal;
pub use registration::{
    ClientTarget, ConfigurationName, FailurePolicy, InvalidName, InvalidTimeout, Registration, TimeoutSeconds,
};
pub use review::{DecodeError, ObjectKind, ReviewOperation, ReviewRequest, UserInfo};
pub use routes::router;
pub use serve::{Addresses, Dependencies, METRICS_PREFIX, ServeError, Server, serve};
