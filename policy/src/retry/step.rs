//! What to do next about a failed run: one step at a time, each found anew from what is stored (seed 003, foreman §1.6 and
//! trap list).
//!
//! Nothing is remembered between two steps but in the ledger, so a crash between any two of them loses nothing. The order
//! carries the meaning:
//!
//! * what is about to be done stands in the ledger before it is done;
//! * the successor would be admitted before its predecessor is deleted;
//! * what we did not delete is never made again.

use jiff::{SignedDuration, Timestamp};
use taskgate_api::{
    Mode,
    retry_ledger::{Blocked, FailureClass, RetryLedger, RetryStage, Transition},
    task_policy::RetryPolicy,
};

use super::{Retried, RunPhase};
use crate::backoff;

/// After how long a deletion that does not come to its end is told (seed 003).
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// How often what is being deleted is looked at: its last parts may go without a word to us.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// How often what is held up is looked at.
const BLOCKED_AGAIN: SignedDuration = SignedDuration::from_secs(15);

/// A failed run that is not being retried.
#[derive(Clone, Copy, Debug)]
pub struct FailedScene<'a> {
    /// The failed object, as it is now.
    pub object: Retried<'a>,
    /// What the ledger of its item says.
    pub ledger: &'a RetryLedger,
    /// The policy's name, how far it may go, and what it says. `None`: no policy retries the object.
    pub rule: Option<(&'a str, Mode, &'a RetryPolicy)>,
    /// How many runs in a row the cluster failed.
    pub infrastructure_failures: u32,
    /// Until when what the object still has to tell is not known (kelos §6.6).
    pub settles: Option<Timestamp>,
    /// What time it is.
    pub now: Timestamp,
}

/// What to do about a failed run.
#[derive(Clone, Debug, PartialEq)]
pub enum FailedStep {
    /// Nothing.
    Nothing,
    /// Nothing, until this moment.
    Wait(Timestamp),
    /// Write down that and how it failed.
    Record,
    /// Say why it is not retried.
    Tell(GivenUp),
    /// Write down that it is about to be retried.
    Begin(Box<Transition>),
}

/// Why a failed run is not retried. A closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GivenUp {
    /// There were as many runs as there may be.
    Attempts {
        /// The run's number.
        attempt: u32,
        /// How many there may be.
        limit: u32,
    },
    /// The cluster failed as many runs in a row as it may.
    Infrastructure {
        /// How many.
        failures: u32,
        /// How many there may be.
        limit: u32,
    },
    /// Only a person can help.
    Human,
    /// Its source is closed.
    Obsolete,
    /// It would be retried, if the policy were enforced.
    OnlyObserved {
        /// The number of the run that there would be.
        to: u32,
    },
}

impl GivenUp {
    /// The reason of the ledger's condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Attempts { .. } => "MaxAttemptsReached",
            Self::Infrastructure { .. } => "MaxInfrastructureFailuresReached",
            Self::Human => "NeedsHuman",
            Self::Obsolete => "SourceClosed",
            Self::OnlyObserved { .. } => "WouldRetry",
        }
    }

    /// Whether the object is the last of its story, so that its deletion begins a new one.
    pub fn is_cap(reason: &str) -> bool {
        matches!(reason, "MaxAttemptsReached" | "MaxInfrastructureFailuresReached")
    }
}

/// The number of the run of an object: the higher of what the ledger and the object say. A further object of an item is a
/// further run.
pub fn attempt_number(ledger: &RetryLedger, uid: &str, stated: u32) -> u32 {
    let same = ledger.run.as_ref().is_some_and(|run| run.uid == uid);
    let known = if same {
        ledger.attempt
    } else {
        ledger.attempt.saturating_add(1)
    };
    known.max(stated).max(1)
}

/// What to do about the failed run of `scene`.
pub fn failed_step(scene: &FailedScene<'_>) -> FailedStep {
    let FailedScene { object, ledger, .. } = *scene;
    if !object.is_tombstone() {
        return FailedStep::Nothing;
    }
    let asked = ledger
        .request
        .as_ref()
        .filter(|request| request.run.uid == object.uid());
    let rule = scene.rule.filter(|(_, _, rule)| !object.is_left_to_bridge(rule));
    if rule.is_none() && asked.is_none() {
        return FailedStep::Nothing;
    }
    if let Some(until) = scene.settles.filter(|until| *until > scene.now) {
        return FailedStep::Wait(until);
    }
    if asked.is_none() && ledger.aside.iter().any(|uid| uid == object.uid()) {
        return FailedStep::Nothing;
    }
    let known = ledger.run.as_ref().is_some_and(|run| run.uid == object.uid());
    let Some(failure) = ledger.failure.as_ref().filter(|_| known) else {
        return FailedStep::Record;
    };
    let from = ledger.attempt.max(1);
    let transition = |from: u32, to: u32| Transition {
        old: object.run(),
        resource_version: object.version().to_owned(),
        from,
        to,
        step: RetryStage::Planned,
        since: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(scene.now),
        policy: None,
        requested_by: None,
        with_feedback: false,
        blocked: None,
        predecessor: None,
        feedback: None,
        children: Vec::new(),
    };
    if let Some(request) = asked {
        let from = request.from_attempt.unwrap_or(from);
        let to = if request.reset { 1 } else { from.saturating_add(1) };
        let told = request.with_feedback || rule.is_some_and(|(_, _, rule)| rule.feedback);
        return FailedStep::Begin(Box::new(Transition {
            requested_by: Some(request.by.clone()),
            with_feedback: told,
            policy: rule.map(|(name, ..)| name.to_owned()),
            ..transition(from, to)
        }));
    }
    let Some((name, mode, rule)) = rule else {
        return FailedStep::Nothing;
    };
    let failures = scene.infrastructure_failures;
    let (to, round) = match failure.class {
        FailureClass::Human => return FailedStep::Tell(GivenUp::Human),
        FailureClass::Obsolete => return FailedStep::Tell(GivenUp::Obsolete),
        FailureClass::Infrastructure if failures >= rule.max_infrastructure_failures => {
            let limit = rule.max_infrastructure_failures;
            return FailedStep::Tell(GivenUp::Infrastructure { failures, limit });
        }
        FailureClass::Infrastructure => (from, from.saturating_add(failures)),
        FailureClass::Work if from >= rule.max_attempts => {
            let limit = rule.max_attempts;
            return FailedStep::Tell(GivenUp::Attempts { attempt: from, limit });
        }
        FailureClass::Work => (from + 1, from),
    };
    if mode != Mode::Enforce {
        return FailedStep::Tell(GivenUp::OnlyObserved { to });
    }
    let wait = backoff::jittered(backoff::wait(&rule.backoff(), round), object.uid());
    let due = failure.time.0.checked_add(wait).unwrap_or(Timestamp::MAX);
    if due > scene.now {
        return FailedStep::Wait(due);
    }
    FailedStep::Begin(Box::new(Transition {
        policy: Some(name.to_owned()),
        with_feedback: rule.feedback,
        ..transition(from, to)
    }))
}

/// A retry that is under way.
#[derive(Clone, Copy, Debug)]
pub struct TransitionScene<'a> {
    /// What the ledger says.
    pub transition: &'a Transition,
    /// What is there under the name of the object now.
    pub found: Found<'a>,
    /// Whether a policy still wants it.
    pub wanted: bool,
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
pub enum Found<'a> {
    /// Nothing.
    Nothing,
    /// The predecessor.
    Old(Retried<'a>),
    /// The successor that we made, with this UID.
    Successor(&'a str),
    /// What somebody else made.
    Other,
}

impl<'a> Found<'a> {
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
    /// Look what is left of it.
    LookForRemains,
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
    /// No policy wants it any more.
    Unwanted,
}

impl Stopped {
    /// The reason of the ledger's condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Deleted => "DeletedBySomebodyElse",
            Self::Replaced => "ReplacedBySomebodyElse",
            Self::Revived => "NotFailedAnyMore",
            Self::Unwanted => "PolicyGone",
        }
    }
}

/// What to do next about the retry of `scene`.
pub fn transition_step(scene: &TransitionScene<'_>) -> TransitionStep {
    match scene.transition.step {
        RetryStage::Planned => planned(scene),
        RetryStage::Deleting => deleting(scene),
        RetryStage::Deleted => deleted(scene),
    }
}

fn planned(scene: &TransitionScene<'_>) -> TransitionStep {
    match scene.found {
        Found::Old(object) if object.metadata().is_terminating() => TransitionStep::Stop(Stopped::Deleted),
        Found::Old(object) if object.phase() != RunPhase::Failed => TransitionStep::Stop(Stopped::Revived),
        Found::Old(_) if !scene.wanted => TransitionStep::Stop(Stopped::Unwanted),
        Found::Old(_) => TransitionStep::Prepare,
        Found::Nothing => TransitionStep::Stop(Stopped::Deleted),
        Found::Successor(_) | Found::Other => TransitionStep::Stop(Stopped::Replaced),
    }
}

fn deleting(scene: &TransitionScene<'_>) -> TransitionStep {
    match scene.found {
        Found::Old(object) if !object.metadata().is_terminating() => {
            if object.version() == scene.transition.resource_version {
                TransitionStep::Delete
            } else {
                TransitionStep::Replan
            }
        }
        _ if scene.unsent => TransitionStep::Stop(Stopped::Deleted),
        // After a crash nobody can say whose deletion it was. Ours stands in the ledger.
        _ => TransitionStep::Confirm,
    }
}

fn deleted(scene: &TransitionScene<'_>) -> TransitionStep {
    let transition = scene.transition;
    let left: Vec<String> = match scene.found {
        Found::Successor(uid) => return TransitionStep::Close(uid.to_owned()),
        Found::Other => return TransitionStep::Stop(Stopped::Replaced),
        Found::Old(object) => vec![held_by(object)],
        Found::Nothing => match scene.left {
            None => return TransitionStep::LookForRemains,
            Some([]) => return TransitionStep::Create,
            Some(left) => left.to_vec(),
        },
    };
    let late = transition.since.0.checked_add(PATIENCE).unwrap_or(Timestamp::MAX);
    if scene.now < late {
        return TransitionStep::Wait(after(scene.now, LOOK_AGAIN).min(late));
    }
    let message = crate::clip(&left.join("; "), 512);
    let told = transition.blocked.as_ref();
    if told.is_some_and(|told| told.reason == BLOCKED && told.message == message) {
        return TransitionStep::Wait(after(scene.now, BLOCKED_AGAIN));
    }
    TransitionStep::Block(Box::new(Blocked {
        reason: BLOCKED.to_owned(),
        message,
        time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(scene.now),
    }))
}

/// Why a retry is held up whose predecessor does not go.
pub const BLOCKED: &str = "RetryBlocked";

/// What keeps an object that is being deleted.
fn held_by(object: Retried<'_>) -> String {
    let run = object.run();
    let finalizers: Vec<_> = object.metadata().finalizers().collect();
    let why = if finalizers.is_empty() {
        "is still being deleted".to_owned()
    } else {
        format!("is held by {}", finalizers.join(", "))
    };
    format!("{} {} {why}", run.kind.as_str(), run.name)
}

fn after(now: Timestamp, wait: SignedDuration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
