//! What to do next about a retry that is under way: one step at a time, each found anew from what is stored (seed 003, foreman
//! §1.6 and trap list).
//!
//! Nothing is remembered between two steps but in the ledger, so a crash between any two of them loses nothing. The order
//! carries the meaning:
//!
//! * what is about to be done stands in the ledger before it is done;
//! * the successor would be admitted before its predecessor is deleted;
//! * what we did not delete is never made again.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use taskgate_api::retry_status::{Blocked, RetryStage, Transition};

use super::{Retried, RunPhase};
use crate::kubernetes::clip;

/// After how long a deletion that does not come to its end is told (seed 003).
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// How often what is being deleted is looked at: its last parts may go without a word to us.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// How often what is held up is looked at.
const BLOCKED_AGAIN: SignedDuration = SignedDuration::from_secs(15);

/// A retry that is under way.
#[derive(Clone, Copy, Debug)]
pub struct TransitionContext<'a> {
    /// What the ledger says.
    pub transition: &'a Transition,
    /// What is there under the name of the object now.
    pub found: NamedObject<'a>,
    /// Whether a policy still wants it, for this very object, or a user asks for it.
    pub wanted: bool,
    /// Why what the `WorkItem` says cannot have been written by taskgate.
    pub invalid: Option<&'static str>,
    /// Whether this very process wrote that the deletion is about to come, and has not sent it: then whoever deleted the
    /// object was somebody else.
    pub unsent: bool,
    /// What is left of the predecessor besides itself; `None` when nobody has looked.
    pub left: Option<&'a [String]>,
    /// What time it is.
    pub now: Timestamp,
}

/// What is there under the name of an object.
#[derive(Clone, Copy, Debug)]
pub enum NamedObject<'a> {
    /// Nothing.
    Nothing,
    /// The predecessor.
    Old(Retried<'a>),
    /// The successor that we made, with this UID.
    Successor(&'a str),
    /// What somebody else made.
    Other,
}

impl<'a> NamedObject<'a> {
    /// What `object` is to the retry `transition`.
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
    /// Read what dies with the predecessor, ask whether its successor would be admitted, and write down that it is deleted
    /// next.
    Prepare,
    /// Go back: the predecessor changed since it was read.
    Replan,
    /// Delete the predecessor, in the version that was read.
    Delete,
    /// Write down that we deleted it.
    Confirm,
    /// QueueObservation what is left of it.
    ListRemains,
    /// Write down what holds it up.
    Block(Box<Blocked>),
    /// Create the successor.
    Create,
    /// Write down that the successor, with this UID, is there.
    Close(String),
    /// Write down that there is no retry.
    Stop(Stopped),
}

/// Why a retry that had begun was ended. A closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stopped {
    /// Somebody else deleted the object: the story ends, and nothing is made again.
    Deleted,
    /// Somebody else made an object of this name.
    Replaced,
    /// The object is not failed any more.
    Revived,
    /// No policy wants it any more, and no user asks for it.
    Unwanted,
    /// What the `WorkItem` says of it cannot have been written by taskgate, for this reason.
    Invalid(&'static str),
}

impl Stopped {
    /// The reason of the ledger's condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Deleted => "DeletedBySomebodyElse",
            Self::Replaced => "ReplacedBySomebodyElse",
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
        // After a crash nobody can say whose deletion it was. Ours stands in the ledger.
        _ => TransitionStep::Confirm,
    }
}

fn deleted(context: &TransitionContext<'_>) -> TransitionStep {
    let transition = context.transition;
    let late = after(transition.since.0, PATIENCE);
    let waiting = TransitionStep::Wait(after(context.now, LOOK_AGAIN).min(late));
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
    let told = transition.blocked.as_ref();
    if told.is_some_and(|told| told.reason == BLOCKED && told.message == message) {
        return TransitionStep::Wait(after(context.now, BLOCKED_AGAIN));
    }
    TransitionStep::Block(Box::new(Blocked {
        reason: BLOCKED.to_owned(),
        message,
        time: Time(context.now),
    }))
}

/// Why a retry is held up whose predecessor does not go.
pub const BLOCKED: &str = "RetryBlocked";
/// The finalizer by which the API server lets an object wait for what it owns: what that is, is told instead.
const WAITS_FOR_CHILDREN: &str = "foregroundDeletion";

/// What keeps an object that is being deleted, apart from what it owns.
fn blockers(object: Retried<'_>) -> Option<String> {
    let run = object.run();
    let all: Vec<_> = object.metadata().finalizers().collect();
    let others: Vec<_> = all
        .iter()
        .filter(|finalizer| **finalizer != WAITS_FOR_CHILDREN)
        .copied()
        .collect();
    let name = format!("{} {}", run.kind.as_str(), run.name);
    match (all.is_empty(), others.is_empty()) {
        (true, _) => Some(format!("{name} is still being deleted")),
        (false, true) => None,
        (false, false) => Some(format!("{name} is held by {}", others.join(", "))),
    }
}

fn after(now: Timestamp, wait: SignedDuration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
