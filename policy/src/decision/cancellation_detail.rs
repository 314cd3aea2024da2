//! The reasons of a decision about a cancellation.

use jiff::Timestamp;

use crate::kubernetes::clip;

/// The longest grace, in seconds: a day.
pub const MAX_GRACE: u32 = 86_400;
/// How much of a reason is kept, in characters.
pub const MAX_REASON: usize = 256;

/// A finding about a request to cancel a Task, or to withdraw that request.
#[derive(Clone, Debug, PartialEq)]
pub enum CancelDetail {
    /// The request is stamped.
    Requested {
        /// Who asked.
        by: String,
        /// When it is due.
        deadline: Timestamp,
    },
    /// The request is withdrawn.
    Withdrawn,
    /// The reason is too long, and cut.
    ReasonCut {
        /// How long it was, in characters.
        length: usize,
    },
    /// A new Task came with annotations of a cancellation, which are left out.
    LeftOut {
        /// Their keys.
        keys: Vec<&'static str>,
    },
    /// The Job of a cancelled Task is made, but does not run.
    JobStopped {
        /// Why.
        message: String,
    },
    /// Another user than taskgate writes an annotation that only taskgate may write.
    Forged {
        /// The annotation's key.
        key: &'static str,
    },
    /// The Task has ended.
    Ended {
        /// As what.
        phase: String,
    },
    /// The Task is being cancelled already: the first request counts.
    Already {
        /// Who asked first.
        by: String,
        /// Why.
        reason: String,
        /// When it is due.
        deadline: Timestamp,
    },
    /// The cancellation is being carried out: it cannot be withdrawn.
    NoWayBack,
    /// The grace is no number of seconds that may be.
    GraceInvalid {
        /// What was written.
        value: String,
    },
    /// The grace of a request that waits cannot be changed.
    GraceFixed,
    /// The user may not delete the Task.
    Forbidden {
        /// Who asks.
        user: String,
        /// The reason of the API server, if it gave one.
        why: String,
    },
    /// Whether who asks may delete the Task cannot be found out.
    Unknown {
        /// What went wrong.
        why: String,
    },
}

impl CancelDetail {
    /// In one word, from a closed set.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Requested { .. } => "CancelRequested",
            Self::Withdrawn => "CancelWithdrawn",
            Self::ReasonCut { .. } => "CancelReasonCut",
            Self::LeftOut { .. } => "CancelLeftOut",
            Self::JobStopped { .. } => "JobCancelled",
            Self::Forged { .. } => "CancelForged",
            Self::Ended { .. } => "CancelEnded",
            Self::Already { .. } => "CancelAlready",
            Self::NoWayBack => "CancelNoWayBack",
            Self::GraceInvalid { .. } => "CancelGraceInvalid",
            Self::GraceFixed => "CancelGraceFixed",
            Self::Forbidden { .. } => "CancelForbidden",
            Self::Unknown { .. } => "CancelUnknown",
        }
    }

    /// In one sentence.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Requested { by, deadline } => format!("cancellation by {by} recorded, due at {deadline}"),
            Self::Withdrawn => "cancellation withdrawn".to_owned(),
            Self::ReasonCut { length } => {
                format!("the reason has {length} characters and is cut at {MAX_REASON}")
            }
            Self::LeftOut { keys } => format!("a new Task is not cancelled: {} left out", keys.join(", ")),
            Self::JobStopped { message } => message.clone(),
            Self::Forged { key } => {
                format!("{key} is written by taskgate alone; to cancel a Task, annotate taskgate.dev/cancel=<reason>")
            }
            Self::Ended { phase } => format!("the Task has ended as {phase}: there is nothing to cancel"),
            Self::Already { by, reason, deadline } => format!(
                "the Task is being cancelled already, by {} at {deadline}, for: {}; the first request counts, withdraw it \
                 to ask anew",
                clip(by, 60),
                clip(reason, 50)
            ),
            Self::NoWayBack => "the Task is being stopped: too late to withdraw its cancellation".to_owned(),
            Self::GraceInvalid { value } => format!(
                "taskgate.dev/cancel-grace is {}: a number of seconds is wanted, 0 to {MAX_GRACE}",
                clip(value, 32)
            ),
            Self::GraceFixed => "the grace of a cancellation cannot be changed: withdraw it and ask anew".to_owned(),
            Self::Forbidden { user, why } => format!(
                "{} may not cancel this Task: that takes the right to delete it{}",
                clip(user, 80),
                clip(why, 60)
            ),
            Self::Unknown { why } => format!(
                "not cancelled: whether you may delete this Task cannot be checked: {}",
                clip(why, 100)
            ),
        }
    }
}
