//! The next step of a retry that is under way, derived anew each time from what is stored.
//!
//! Nothing but the retry status is kept between two steps, so that a crash between them loses nothing. The order matters:
//!
//! * a step is recorded in the status before it is taken;
//! * the successor passes a dry run before its predecessor is deleted;
//! * an object that taskgate did not delete is never created again.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use taskgate_api::retry_status::{Blocked, RetryStage, Transition};

use super::{Retried, RunPhase};
use crate::kubernetes::clip;

/// After how long a deletion that does not end is reported.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// The requeue interval of a deletion: its last parts may end without an event.
const REQUEUE_DELETING: SignedDuration = SignedDuration::from_secs(2);
/// The requeue interval of a blocked retry.
const REQUEUE_BLOCKED: SignedDuration = SignedDuration::from_secs(15);

/// A retry that is under way.
#[derive(Clone, Copy, Debug)]
pub struct TransitionContext<'a> {
    /// The retry status.
    pub transition: &'a Transition,
    /// The object that has the name now.
    pub found: NamedObject<'a>,
    /// Whether a policy still retries the object, or a user asks for it.
    pub wanted: bool,
    /// Why the status cannot have been written by taskgate.
    pub invalid: Option<&'static str>,
    /// Whether this process recorded the deletion and has not sent it: then taskgate did not delete the object.
    pub unsent: bool,
    /// What is left of the predecessor besides itself; `None` when it was not read.
    pub left: Option<&'a [String]>,
    /// What time it is.
    pub now: Timestamp,
}

/// The object that has the name of a retried one.
#[derive(Clone, Copy, Debug)]
pub enum NamedObject<'a> {
    /// Nothing.
    Nothing,
    /// The predecessor.
    Old(Retried<'a>),
    /// The successor that taskgate created, with this UID.
    Successor(&'a str),
    /// Another object.
    Other,
}

impl<'a> NamedObject<'a> {
    /// Compares `object` with the retry `transition`.
    pub fn of(object: Option<Retried<'a>>, transition: &Transition) -> Self {
        let Some(object) = object else { return Self::Nothing };
        let of = object.metadata().annotation(taskgate_api::keys::RETRY_OF);
        if object.uid() == transition.old.uid {
            Self::Old(object)
        } else if of == Some(&transition.old.uid) {
            Self::Successor(object.uid())
        } else {
            Self::Other
        }
    }
}

/// What to do next about a retry that is under way.
#[derive(Clone, Debug, PartialEq)]
pub enum TransitionStep {
    /// Nothing, until this moment.
    Wait(Timestamp),
    /// Read what is deleted with the predecessor, check that its successor would be admitted, and record that it is deleted next.
    Prepare,
    /// Go back: the predecessor changed since it was read.
    Replan,
    /// Delete the predecessor, in the version that was read.
    Delete,
    /// Record that taskgate deleted it.
    Confirm,
    /// Read what is left of it.
    ListRemains,
    /// Record what blocks it.
    Block(Box<Blocked>),
    /// Create the successor.
    Create,
    /// Record the successor, with this UID.
    Close(String),
    /// Record that the retry is dropped.
    Stop(Stopped),
}

/// Why a retry that had begun was ended. A closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stopped {
    /// A user or another controller deleted the object: it is not created again.
    Deleted,
    /// A user or another controller created an object of this name.
    Replaced,
    /// The object is not failed any more.
    Revived,
    /// No policy retries it any more, and no user asks for it.
    Unwanted,
    /// The status cannot have been written by taskgate, for this reason.
    Invalid(&'static str),
}

impl Stopped {
    /// The reason of the condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Deleted => "DeletedExternally",
            Self::Replaced => "ReplacedExternally",
            Self::Revived => "NotFailedAnyMore",
            Self::Unwanted => "PolicyGone",
            Self::Invalid(_) => "RetryInvalid",
        }
    }
}

/// What to do next about the retry of `context`.
pub fn transition_step(context: &TransitionContext<'_>) -> TransitionStep {
    if let Some(why) = context.invalid {
        return TransitionStep::Stop(Stopped::Invalid(why));
    }
    match context.transition.step {
        RetryStage::Planned => planned(context),
        RetryStage::Deleting => deleting(context),
        RetryStage::Deleted => deleted(context),
    }
}

fn planned(context: &TransitionContext<'_>) -> TransitionStep {
    match context.found {
        NamedObject::Old(object) if object.metadata().is_terminating() => TransitionStep::Stop(Stopped::Deleted),
        NamedObject::Old(object) if object.phase() != RunPhase::Failed => TransitionStep::Stop(Stopped::Revived),
        NamedObject::Old(_) if !context.wanted => TransitionStep::Stop(Stopped::Unwanted),
        NamedObject::Old(_) => TransitionStep::Prepare,
        NamedObject::Nothing => TransitionStep::Stop(Stopped::Deleted),
        NamedObject::Successor(_) | NamedObject::Other => TransitionStep::Stop(Stopped::Replaced),
    }
}

fn deleting(context: &TransitionContext<'_>) -> TransitionStep {
    match context.found {
        NamedObject::Old(object) if !object.metadata().is_terminating() => {
            if object.phase() != RunPhase::Failed {
                TransitionStep::Stop(Stopped::Revived)
            } else if !context.wanted {
                TransitionStep::Stop(Stopped::Unwanted)
            } else if object.version() == context.transition.resource_version {
                TransitionStep::Delete
            } else {
                TransitionStep::Replan
            }
        }
        _ if context.unsent => TransitionStep::Stop(Stopped::Deleted),
        // After a crash it is not known who deleted the object: the status has taskgate's own deletion.
        _ => TransitionStep::Confirm,
    }
}

fn deleted(context: &TransitionContext<'_>) -> TransitionStep {
    let transition = context.transition;
    let late = after(transition.since.0, PATIENCE);
    let waiting = TransitionStep::Wait(after(context.now, REQUEUE_DELETING).min(late));
    let left = match (context.found, context.left) {
        (NamedObject::Successor(uid), _) => return TransitionStep::Close(uid.to_owned()),
        (NamedObject::Other, _) => return TransitionStep::Stop(Stopped::Replaced),
        (NamedObject::Old(_), _) if context.now < late => return waiting,
        (_, None) => return TransitionStep::ListRemains,
        (NamedObject::Nothing, Some([])) if !context.wanted => return TransitionStep::Stop(Stopped::Unwanted),
        (NamedObject::Nothing, Some([])) => return TransitionStep::Create,
        (NamedObject::Nothing, Some(left)) => left.to_vec(),
        (NamedObject::Old(object), Some(left)) => blockers(object).into_iter().chain(left.iter().cloned()).collect(),
    };
    if context.now < late {
        return waiting;
    }
    let message = clip(&left.join("; "), 512);
    let recorded = transition.blocked.as_ref();
    if recorded.is_some_and(|known| known.reason == BLOCKED && known.message == message) {
        return TransitionStep::Wait(after(context.now, REQUEUE_BLOCKED));
    }
    TransitionStep::Block(Box::new(Blocked {
        reason: BLOCKED.to_owned(),
        message,
        time: Time(context.now),
    }))
}

/// The reason of a retry whose predecessor is not deleted.
pub const BLOCKED: &str = "RetryBlocked";
/// The finalizer of foreground deletion: the remaining children are reported instead.
const WAITS_FOR_CHILDREN: &str = "foregroundDeletion";

/// The finalizers that block the deletion of an object, and other causes besides its children.
fn blockers(object: Retried<'_>) -> Option<String> {
    let run = object.run();
    let all: Vec<_> = object.metadata().finalizers().collect();
    let others: Vec<_> = all
        .iter()
        .filter(|finalizer| **finalizer != WAITS_FOR_CHILDREN)
        .copied()
        .collect();
    match (all.is_empty(), others.is_empty()) {
        (true, _) => Some(format!("{run} is still being deleted")),
        (false, true) => None,
        (false, false) => Some(format!("{run} is held by {}", others.join(", "))),
    }
}

fn after(now: Timestamp, wait: SignedDuration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
