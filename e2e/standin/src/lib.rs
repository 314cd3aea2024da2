//! A stand-in for Kelos and for GitHub's REST API, for taskgate's end-to-end tests and its tour.
//!
//! It imitates what Kelos' controller and spawner do to a cluster, faithful in what hurts: full typed
//! updates, names and dedupe, backoff after a failed cycle, Jobs recreated when missing, the in-memory
//! branch lock, finalizer and TTL. The statements that it keeps are numbered S1 to S30 as in the
//! project's notes on upstream; the tests carry the same numbers. It runs no agents, reports nothing
//! to GitHub, and has no budgets, sessions or reviews.
//!
//! Depends on no other crate of the workspace, and none but the end-to-end tests depends on it: what
//! it knows of Kelos is its own, so that a mistake in taskgate's view of Kelos cannot hide here.
//!
//! ```text
//! Standin ── controller ── caches, queue ── Tasks, Jobs          Agents ── pods (no kubelet)
//!         └─ spawners ──── queue ────────── Tasks, TaskSpawners  GitHub ── issues, comments
//! ```

pub mod agents;
pub mod cache;
mod controller;
pub mod crds;
mod error;
mod github;
mod go;
pub mod keys;
mod metrics;
pub mod program;
mod quantity;
pub mod queue;
mod serve;
mod spawner;
mod standin;
pub mod types;

pub use agents::{Agents, Outcome};
pub use cache::{Key, Scope};
pub use controller::BranchLocks;
pub use crds::{CRDS, CrdCapability, install};
pub use error::Error;
pub use github::{AgentRule, CommentSeed, Fault, GitHub, Issue, IssueSeed, Repo, RepoSeed, Seed, Seen, SharedGitHub};
pub use metrics::{CycleResult, Metrics};
pub use quantity::canonical as canonical_quantity;
pub use spawner::{Delivered, Delivery, DiscoverError};
pub use standin::{Options, Parts, Standin, client};
