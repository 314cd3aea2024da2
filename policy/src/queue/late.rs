//! A Job that was made while nobody watched: which queue it ought to wait in.

use taskgate_api::{Mode, keys};

use super::choice::{Choice, choose, ruling};
use crate::select::Governed;

/// The queue, and the priority class, that admission would have given to the Job, where the policy enforces it. `None` for a Job
/// that admission saw, that is suspended, or whose agent works already: it is not interrupted for the sake of a queue.
pub fn late_queue(governed: &Governed<'_>) -> Option<(String, Option<String>)> {
    let job = governed.request.job();
    let works = governed.request.object.pointer("/status/ready");
    let seen = job.queue().is_some() || job.is_stopped() || job.metadata().annotation(keys::NOT_QUEUED).is_some();
    if seen || job.is_suspended() || job.has_ended() || works.and_then(serde_json::Value::as_u64).unwrap_or(0) > 0 {
        return None;
    }
    let ruling = ruling(&governed.sections).filter(|ruling| ruling.mode == Mode::Enforce)?;
    match choose(governed, ruling.rule)? {
        Choice::Queue { queue, class } => Some((queue, class)),
        Choice::None(..) => None,
    }
}
