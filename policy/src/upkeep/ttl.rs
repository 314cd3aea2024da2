//! How long a Task that has ended is kept.

use jiff::{SignedDuration, Timestamp};

use super::{Scene, Step};

/// The TTL that admission moved aside, for Tasks that nothing else is to be done about: as Kelos would have done it.
pub(super) fn keep_ttl(scene: &Scene<'_>) -> Step {
    match ttl_end(scene, scene.task.kept_ttl) {
        None => Step::Done,
        Some(end) if end > scene.now => Step::Wait(end),
        Some(_) => Step::Delete,
    }
}

/// When `ttl`, in seconds from the Task's end, is over.
pub(super) fn ttl_end(scene: &Scene<'_>, ttl: Option<u32>) -> Option<Timestamp> {
    let task = scene.task;
    let ttl = ttl.filter(|_| task.is_terminal())?;
    let recorded = scene.attempt().and_then(|attempt| attempt.completion_time.as_ref());
    let ended = task.ttl_start(recorded.map(|time| time.0), scene.now);
    ended.checked_add(SignedDuration::from_secs(i64::from(ttl))).ok()
}
