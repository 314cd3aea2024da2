//! Cancellation (seed 001): stopping a Task whose work has become pointless, so that Kelos goes terminal by itself.
//!
//! All that is known of a cancellation stands on the Task, in annotations: who asked, why, until when the agent has
//! time ([`Cancellation`]), and how far it has come ([`Progress`]). Nothing is remembered elsewhere, so a crash between
//! any two steps loses nothing and repeats nothing:
//!
//! ```text
//! requested ─→ Announced ─→ Cancelling ─→ Job failed ─→ Kelos terminal ─→ Cancelled ─→ Job deleted
//!     └── withdrawn ──┘         │             (or the Task, where there is no Job)
//!                               └─→ TooLate: it ended by itself
//! ```
//!
//! Who asks is a person, or a policy ([`wish()`]). Admission checks and stamps what people write ([`admit()`]); the
//! controller takes the steps ([`cancel_step`]).

mod admit;
mod detail;
mod job;
mod request;
mod schedule;
mod step;
mod wish;
mod wording;

pub use admit::{CancelReview, admit, asks_permission};
pub use detail::CancelDetail;
pub use request::{Cancellation, MAX_GRACE, MAX_REASON, Progress, Stamp, Trigger, annotations};
pub use schedule::next_run;
pub use step::{CancelScene, CancelStep, CancelTask, JobEnd, Run, cancel_step};
pub use wish::{Sighting, Verdict as WishVerdict, Wish, WishScene, is_back, wish};
pub use wording::{announcement, by_whom, conclusion};

pub(crate) use job::finding as job_finding;
