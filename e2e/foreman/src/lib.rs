//! A stand-in for Foreman, for taskgate's end-to-end tests and its tour.
//!
//! It imitates what Foreman's operator and agent do to a cluster, faithful in what hurts: a phase Failed that is no
//! end, children that are known by their label only, conditions whose times move, deletion that is left to the
//! garbage collector. The statements that it keeps are numbered F1 to F25 as in the project's notes on upstream; the
//! tests carry the same numbers. It runs no models, and has no fleet: one node takes every task.
//!
//! What it knows of Foreman is its own, so that a mistake in taskgate's view of Foreman cannot hide here. From the
//! stand-in for Kelos it takes the two halves of controller-runtime that both imitate, cache and queue.
//!
//! ```text
//! Foreman ── operator ── plan, render, roll up ── Workloads → AgenticTasks
//!         └─ agent ───── claim, run, report ───── AgenticTasks → Jobs (no kubelet)
//! ```

mod agent;
mod condition;
pub mod crds;
mod error;
mod foreman;
mod journal;
pub mod keys;
mod merge;
mod operator;
mod options;
mod outcome;
mod seed;
mod serve;
pub mod types;

pub use crds::{CRDS, install};
pub use error::Error;
pub use foreman::{Foreman, client};
pub use journal::{Execution, Journal, Run};
pub use options::Options;
pub use outcome::Outcome;
pub use seed::{Rule, Seed};
