//! The vocabulary of one admission review: the request and the cluster state around it, the findings of the features, and the
//! decision that follows from them.
//!
//! A feature returns [`Finding`]s: a [`Detail`] (data, one code for metrics, one message) and an [`Effect`]. It does not apply the
//! policy's mode; [`assemble`] does, last. Imports `kubernetes`, `template`, `issue_source` and `matching`. Imported by every
//! feature and by `admission`.

mod breaker_message;
mod cancellation_detail;
mod finding;
mod governed;
mod queue_detail;
mod reason;
mod request;

pub use cancellation_detail::{CancelDetail, MAX_GRACE, MAX_REASON};
pub use finding::{Decision, Denial, Verdict};
pub(crate) use finding::{Effect, Finding, assemble};
pub use governed::Governed;
pub use queue_detail::{NotQueued, QueueDetail};
pub use reason::{BreakerRefusal, Detail, Reason};
pub use request::{AdmissionContext, Kind, KueueInfo, Operation, Phase, Request};
