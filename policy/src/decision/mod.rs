//! The vocabulary of one admission review: the request and the cluster state around it, the findings of the features, and the
//! decision that follows from them.
//!
//! A feature returns [`Finding`]s: a [`Detail`] (data, one code for metrics, one message) and an [`Effect`]. It does not apply the
//! policy's mode; [`assemble`] does, last. Imports `kubernetes`, `template`, `issue_source` and `matching`. Imported by every
//! feature and by `admission`.

mod finding;
mod reason;
mod request;

pub use finding::{Decision, Denial, Verdict};
pub(crate) use finding::{Effect, Finding, assemble};
pub use reason::{BreakerRefusal, CancelDetail, Detail, MAX_GRACE, MAX_REASON, NotQueued, QueueDetail, Reason};
pub use request::{AdmissionContext, Governed, Kind, KueueInfo, Operation, Phase, Request};
