//! taskgate's companion controller: everything that taskgate writes to a cluster, because admission has no side effects.
//!
//! One file per concern. Every write is idempotent, touches only fields that are ours, and there is none at rest but the
//! leader's Lease.
//!
//! ```text
//! run ── lead ── watches ── tasks, policies        leader, fence: who runs it; switch, step_aside: while disabled
//!  └─ task: look, next step, look again ── hold (finalizer, mark) · ledger (WorkItem) · ttl (deletion) · stop (Job)
//!  │                                       cancel (Task, Job, pods)
//!  ├─ spawner_status · reassess              evidence, cap, events, metrics, refusals beside them
//!  ├─ source: what the trackers say of items, for those who wait for it
//!  ├─ queue: what Kueue does with Jobs, told to Tasks
//!  └─ retry: failed Workloads and Tasks that nobody makes again
//! ```
//!
//! `requests` carries out what users ask of a WorkItem; `unwinding` keeps a panic to the reconcile that it is in.
//!
//! What the next step is, the decision core says ([`taskgate_policy::next_action`]); here it is only taken.
//!
//! Depends on `taskgate-api` and `taskgate-policy`. Called by the `taskgate` binary.

mod cancel;
mod cap;
mod context;
mod crd;
mod error;
mod events;
mod evidence;
mod fence;
mod hold;
mod lead;
mod leader;
mod ledger;
mod metadata;
mod metrics;
mod named;
mod policies;
mod policy_status;
mod queue;
mod reassess;
mod refusals;
mod requests;
mod retry;
mod run;
mod source;
mod spawner_status;
mod step_aside;
mod stop;
pub mod switch;
mod task;
mod tasks;
mod ttl;
mod unwinding;
mod watches;

pub use cancel::knows_cancelled;
pub use error::Error;
pub use metrics::Metrics;
pub use policies::SharedPolicies;
pub use policy_status::run as run_policy_status;
pub use run::{Config, run};
pub use source::SourceConfig;
