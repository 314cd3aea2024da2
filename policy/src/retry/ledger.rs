//! What each step writes into the status of a `WorkItem`. Each function gives the new status, or `None` when it says so
//! already or speaks of another retry by now: every step can be taken twice.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;
use taskgate_api::{
    WorkItemStatus,
    retry_ledger::{Blocked, CONDITION, RetryLedger, RetryStage, RunFailure, RunRef, Transition},
    work_item::{Attempt, Reset},
};

use super::{Failure, GivenUp, Stopped};
use crate::ledger::record;

/// How many failed objects of an item are kept apart from the one that its ledger speaks of.
const ASIDE: usize = 50;

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said<'a> {
    /// `True` while a retry is under way or has come to its end, `False` when there is none.
    pub status: bool,
    /// Why, in one word.
    pub reason: &'a str,
    /// Why, in one sentence.
    pub message: String,
}

/// A run ended badly: its end goes into the history, unless it stands there, and the ledger speaks of it from now on.
pub fn failed(
    status: &WorkItemStatus,
    run: &RunRef,
    number: u32,
    attempt: Attempt,
    failure: &Failure,
    now: Timestamp,
) -> Option<WorkItemStatus> {
    let mut next = record(status, attempt, None, now).unwrap_or_else(|| status.clone());
    let ledger = next.retry.get_or_insert_default();
    let known = ledger.run.as_ref() == Some(run) && ledger.failure.is_some();
    if known || ledger.transition.is_some() {
        return None;
    }
    let before = ledger
        .run
        .take()
        .filter(|before| before.uid != run.uid && ledger.failure.is_some());
    ledger.aside.retain(|uid| *uid != run.uid);
    ledger.aside.extend(before.map(|before| before.uid));
    let surplus = ledger.aside.len().saturating_sub(ASIDE);
    ledger.aside.drain(..surplus);
    ledger.attempt = number;
    ledger.run = Some(run.clone());
    ledger.failure = Some(RunFailure {
        class: failure.class,
        reason: failure.reason.clone(),
        time: Time(now),
    });
    Some(next)
}

/// A run ended well: what failed before is forgotten.
///
/// Not what ended well before: of an object that is older than the failure that the ledger speaks of, nothing follows.
pub fn succeeded(
    status: &WorkItemStatus,
    run: &RunRef,
    created: Timestamp,
    attempt: Attempt,
    now: Timestamp,
) -> Option<WorkItemStatus> {
    let ledger = status.retry.as_ref().filter(|ledger| ledger.transition.is_none())?;
    let same = ledger.run.as_ref() == Some(run);
    if !same && ledger.failure.as_ref().is_some_and(|failure| failure.time.0 > created) {
        return None;
    }
    let mut next = record(status, attempt, None, now)?;
    let ledger = next.retry.get_or_insert_default();
    ledger.attempt = 0;
    ledger.run = Some(run.clone());
    ledger.failure = None;
    ledger.request = None;
    let said = Said {
        status: true,
        reason: "Succeeded",
        message: format!("{} {} succeeded", run.kind.as_str(), run.name),
    };
    say(&mut next, &said, now);
    Some(next)
}

/// A retry is decided.
pub fn begun(status: &WorkItemStatus, transition: &Transition, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let ledger = next.retry.as_mut()?;
    let current = ledger.run.as_ref() == Some(&transition.old) && ledger.transition.is_none();
    if !current {
        return None;
    }
    ledger.request = None;
    ledger.transition = Some(transition.clone());
    let Transition { old, from, to, .. } = transition;
    let why = match (&transition.requested_by, from == to) {
        (Some(by), _) => format!("asked for by {by}"),
        (None, true) => "the cluster failed it, the number stays".to_owned(),
        (None, false) => format!("attempt {from} failed"),
    };
    let message = format!(
        "{} {} is to be run again as attempt {to}: {why}",
        old.kind.as_str(),
        old.name
    );
    let said = Said {
        status: true,
        reason: "Planned",
        message,
    };
    say(&mut next, &said, now);
    Some(next)
}

/// What was read of the predecessor before it goes.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The version that was read.
    pub resource_version: String,
    /// What its successor is built from.
    pub predecessor: Value,
    /// Why it failed.
    pub feedback: Option<String>,
    /// The names of its children.
    pub children: Vec<String>,
}

/// The predecessor is about to be deleted.
pub fn prepared(status: &WorkItemStatus, uid: &str, prepared: &Prepared, now: Timestamp) -> Option<WorkItemStatus> {
    change(status, uid, RetryStage::Planned, |transition| {
        transition.step = RetryStage::Deleting;
        transition.since = Time(now);
        transition.blocked = None;
        transition.resource_version.clone_from(&prepared.resource_version);
        transition.predecessor = Some(prepared.predecessor.clone());
        transition.feedback.clone_from(&prepared.feedback);
        transition.children.clone_from(&prepared.children);
        ("Deleting", "makes room: its successor would be admitted".to_owned())
    })
    .map(|(mut next, said)| {
        say(&mut next, &said, now);
        next
    })
}

/// The predecessor changed meanwhile: it is read anew.
pub fn replanned(status: &WorkItemStatus, uid: &str, now: Timestamp) -> Option<WorkItemStatus> {
    change(status, uid, RetryStage::Deleting, |transition| {
        transition.step = RetryStage::Planned;
        transition.since = Time(now);
        transition.predecessor = None;
        ("Planned", "changed meanwhile and is looked at anew".to_owned())
    })
    .map(|(mut next, said)| {
        say(&mut next, &said, now);
        next
    })
}

/// We deleted the predecessor.
pub fn deleted(status: &WorkItemStatus, uid: &str, now: Timestamp) -> Option<WorkItemStatus> {
    change(status, uid, RetryStage::Deleting, |transition| {
        transition.step = RetryStage::Deleted;
        transition.since = Time(now);
        (
            "Deleted",
            "is deleted; its successor comes once nothing is left of it".to_owned(),
        )
    })
    .map(|(mut next, said)| {
        say(&mut next, &said, now);
        next
    })
}

/// Something holds the retry up.
pub fn blocked(status: &WorkItemStatus, uid: &str, blocked: &Blocked, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let transition = next
        .retry
        .as_mut()?
        .transition
        .as_mut()
        .filter(|known| known.old.uid == uid)?;
    let same = |told: &Blocked| told.reason == blocked.reason && told.message == blocked.message;
    if transition.blocked.as_ref().is_some_and(same) {
        return None;
    }
    transition.blocked = Some(blocked.clone());
    let said = Said {
        status: false,
        reason: &blocked.reason,
        message: blocked.message.clone(),
    };
    say(&mut next, &said, now);
    Some(next)
}

/// The successor is there.
pub fn closed(status: &WorkItemStatus, uid: &str, successor: &str, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let ledger = next.retry.as_mut()?;
    let transition = take(ledger, uid)?;
    let Transition { old, to, from, .. } = transition;
    let message = format!(
        "{} {} runs again as attempt {to}, after {from}",
        old.kind.as_str(),
        old.name
    );
    ledger.attempt = to;
    ledger.failure = None;
    ledger.run = Some(RunRef {
        uid: successor.to_owned(),
        ..old
    });
    let said = Said {
        status: true,
        reason: "Recreated",
        message,
    };
    say(&mut next, &said, now);
    Some(next)
}

/// There is no retry after all. The number stays: whatever comes next for the item goes on from there.
pub fn stopped(status: &WorkItemStatus, uid: &str, why: Stopped, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let ledger = next.retry.as_mut()?;
    let transition = take(ledger, uid)?;
    ledger.failure = None;
    let name = format!("{} {}", transition.old.kind.as_str(), transition.old.name);
    let message = match why {
        Stopped::Deleted => format!("{name} was deleted by somebody else: it is not made again"),
        Stopped::Replaced => format!("somebody else made a {name}: it is left alone"),
        Stopped::Revived => format!("{name} is not failed any more: it is left alone"),
        Stopped::Unwanted => format!("no policy retries {name} any more"),
    };
    let said = Said {
        status: false,
        reason: why.reason(),
        message,
    };
    say(&mut next, &said, now);
    Some(next)
}

/// Why a failed run is not retried. The object itself is not touched: any write to a failed Workload can start it again
/// (foreman §2.2).
pub fn told(status: &WorkItemStatus, uid: &str, why: GivenUp, now: Timestamp) -> Option<WorkItemStatus> {
    let ledger = status.retry.as_ref()?;
    let run = ledger.run.as_ref().filter(|run| run.uid == uid)?;
    let name = format!("{} {}", run.kind.as_str(), run.name);
    let reason = ledger.failure.as_ref().map_or("", |failure| &failure.reason);
    let message = match why {
        GivenUp::Attempts { attempt, limit } => {
            format!("{name} failed ({reason}) at attempt {attempt} of {limit} and stays as it is")
        }
        GivenUp::Infrastructure { failures, limit } => {
            format!("the cluster failed {name} ({reason}) {failures} times in a row, limit {limit}: it stays as it is")
        }
        GivenUp::Human => format!("{name} failed with {reason}: only a person can help"),
        GivenUp::Obsolete => format!("{name} failed, and its source is closed: nothing is left to do"),
        GivenUp::OnlyObserved { to } => format!("{name} failed ({reason}) and would be run again as attempt {to}"),
    };
    let said = Said {
        status: false,
        reason: why.reason(),
        message,
    };
    let mut next = status.clone();
    say(&mut next, &said, now).then_some(next)
}

/// The object of a failed run is gone, deleted by somebody else. What had come to its cap starts over with whatever comes
/// next; anything else goes on counting.
pub fn forgotten(status: &WorkItemStatus, uid: &str, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let ledger = next.retry.as_mut()?;
    let known = ledger.run.as_ref().is_some_and(|run| run.uid == uid);
    let run = ledger
        .run
        .clone()
        .filter(|_| known && ledger.transition.is_none() && ledger.failure.is_some())?;
    ledger.failure = None;
    ledger.request = None;
    let was_cap = condition(status).is_some_and(|condition| GivenUp::is_cap(&condition.reason));
    let name = format!("{} {}", run.kind.as_str(), run.name);
    let message = if was_cap {
        ledger.attempt = 0;
        next.consecutive_failures = 0;
        next.infrastructure_failures = 0;
        next.last_reset = Some(Reset {
            time: Time(now),
            reason: "TombstoneDeleted".to_owned(),
            task_uid: Some(run.uid),
            by: None,
            message: None,
        });
        format!("{name} was deleted by somebody else: the count starts over")
    } else {
        format!("{name} was deleted by somebody else: it is not made again")
    };
    let said = Said {
        status: false,
        reason: Stopped::Deleted.reason(),
        message,
    };
    say(&mut next, &said, now);
    Some(next)
}

/// The condition about retries.
pub fn condition(status: &WorkItemStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == CONDITION)
}

fn take(ledger: &mut RetryLedger, uid: &str) -> Option<Transition> {
    let ours = ledger.transition.as_ref().is_some_and(|known| known.old.uid == uid);
    if ours { ledger.transition.take() } else { None }
}

fn change<'a>(
    status: &WorkItemStatus,
    uid: &str,
    from: RetryStage,
    change: impl FnOnce(&mut Transition) -> (&'a str, String),
) -> Option<(WorkItemStatus, Said<'a>)> {
    let mut next = status.clone();
    let transition = next.retry.as_mut()?.transition.as_mut();
    let transition = transition.filter(|known| known.old.uid == uid && known.step == from)?;
    let name = format!("{} {}", transition.old.kind.as_str(), transition.old.name);
    let (reason, what) = change(transition);
    let said = Said {
        status: true,
        reason,
        message: format!("{name} {what}"),
    };
    Some((next, said))
}

/// Writes the condition; whether it is another one now.
fn say(status: &mut WorkItemStatus, said: &Said<'_>, now: Timestamp) -> bool {
    let text = if said.status { "True" } else { "False" };
    let message = crate::clip(&said.message, 1024);
    let old = status
        .conditions
        .iter_mut()
        .find(|condition| condition.type_ == CONDITION);
    let Some(old) = old else {
        status.conditions.push(Condition {
            type_: CONDITION.to_owned(),
            status: text.to_owned(),
            reason: said.reason.to_owned(),
            message,
            last_transition_time: Time(now),
            observed_generation: None,
        });
        return true;
    };
    if old.status == text && old.reason == said.reason && old.message == message {
        return false;
    }
    if old.status != text {
        old.last_transition_time = Time(now);
    }
    text.clone_into(&mut old.status);
    said.reason.clone_into(&mut old.reason);
    old.message = message;
    true
}
