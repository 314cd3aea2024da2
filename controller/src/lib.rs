//! taskgate's companion controller: all writes of taskgate to a cluster, because admission has no side effects.
//!
//! Every write is idempotent, carries preconditions, and touches only taskgate's own fields. Nothing is written while idle but the
//! leader's Lease. The policy crate decides each next step; this crate reads, writes and waits.
//!
//! ```text
//! run            leader_election: Lease, fence, switch            config, metrics
//!  └─ controller   the wiring, what a change of the cache leads to, and the reconcile of a Task
//!      ├─ breaker        failurePolicy: counts, keeps, deletes and stops Tasks
//!      ├─ cancellation   cancellationPolicy: Task, Job, pods, runner
//!      ├─ queueing       queueName: reports on the Task what Kueue does with its Job
//!      ├─ metadata       labels and annotations that wait for the issue source
//!      ├─ kelos_fields   the fields of these names on Kelos' own kinds
//!      ├─ retry          failed Workloads, and failed Tasks that no spawner creates again
//!      └─ source         reads issue sources for the features
//! status         conditions of policies, on every replica
//! ```
//!
//! Shared by the features, from the bottom: `kubernetes`, `error`, `workqueue` (the loop, results, backoff, rate limits),
//! `events`, `context`, `task`, `job`, `finalizer`, `work_items`. Imports point downwards in this order; of the features
//! only `breaker` imports `cancellation`, `retry` imports `breaker`, and all may import `source` and `status`.
//!
//! Objects that other parts of taskgate need too come from the cluster cache (`taskgate-cache`); a feature watches only its own.
//!
//! Depends on `taskgate-api`, `taskgate-policy` and `taskgate-cache`. Called by the `taskgate` binary.

mod breaker;
mod cancellation;
mod config;
mod context;
mod controller;
mod error;
mod events;
mod finalizer;
mod job;
mod kelos_fields;
mod kubernetes;
mod leader_election;
mod metadata;
mod metrics;
mod queueing;
mod retry;
mod run;
mod source;
mod status;
mod task;
mod work_items;
mod workqueue;

pub use cancellation::{CancelledFields, cancelled_fields};
pub use config::Config;
pub use controller::Metrics;
pub use error::Error;
pub use leader_election::switch;
pub use run::{run, run_policy_status};
pub use source::SourceConfig;
