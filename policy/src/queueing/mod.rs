//! Queueing through Kueue (`queueName`): a Job is created suspended, with a queue label, and Kueue starts it. Afterwards the Job is
//! Kueue's; the Task's condition `Queued` mirrors its state ([`queue_state`]).
//!
//! Imports `kubernetes`, `template`, `matching` and `decision`. Imported by `admission`; the controller calls [`queue_state`].

mod condition;
mod job;
mod task;

pub use condition::{InstalledKueue, QueueContext, QueueObservation, QueueReason, QueueState, queue_state};
pub(crate) use job::findings;
pub use job::requests_queue;
pub use task::has_queue_field;
pub(crate) use task::task_finding;
