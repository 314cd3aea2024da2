//! What people are told of a cancellation.

use crate::names::clip;

use super::{Cancellation, Stamp};

/// What Kelos writes for a runner that was told to let go (kelos §7).
const RUNNER_CANCELLED: &str = "task was cancelled";
/// What our own messages begin with.
const CANCELLED_BY: &str = "Cancelled by ";

/// Who asked, in the words of `status.cancelledBy`.
pub fn by_whom(cancellation: &Cancellation) -> &str {
    cancellation.stamp.as_ref().map_or("unknown", |stamp| &stamp.by)
}

/// What a Task that was cancelled says of itself: `Cancelled by user:ann: no longer needed`.
pub fn conclusion(cancellation: &Cancellation) -> String {
    let text = format!("{CANCELLED_BY}{}{}", by_whom(cancellation), because(cancellation));
    clip(&text, 512)
}

/// What a Task that is going to be cancelled says of itself.
pub fn announcement(stamp: &Stamp, cancellation: &Cancellation) -> String {
    let (by, due) = (&stamp.by, stamp.deadline);
    clip(
        &format!("will be cancelled at {due} by {by}{}", because(cancellation)),
        512,
    )
}

/// Whether this is the message of a pool's Task that ended because somebody cancelled it.
pub(super) fn is_of_cancelled_runner(message: &str) -> bool {
    message == RUNNER_CANCELLED || message.starts_with(CANCELLED_BY)
}

fn because(cancellation: &Cancellation) -> String {
    match cancellation.reason.as_deref().map(str::trim) {
        None | Some("") => String::new(),
        Some(reason) => format!(": {reason}"),
    }
}
