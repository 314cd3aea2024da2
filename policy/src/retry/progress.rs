//! What each step of a retry writes into the status of a `WorkItem`. Each function gives the new status, or `None` when it
//! speaks of another retry by now: every step can be taken twice.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use taskgate_api::{
    WorkItemStatus,
    retry_ledger::{Blocked, RetryLedger, RetryStage, RunRef, Transition},
};

use super::{
    Stopped,
    condition::{Said, say},
};

/// A retry is decided.
pub fn begun(status: &WorkItemStatus, transition: &Transition, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let ledger = next.retry.as_mut()?;
    let current = ledger.run.as_ref() == Some(&transition.old) && ledger.transition.is_none();
    if !current {
        return None;
    }
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
        Stopped::Invalid(why) => format!("the retry of {name} is dropped: {why}"),
    };
    let said = Said {
        status: false,
        reason: why.reason(),
        message,
    };
    say(&mut next, &said, now);
    Some(next)
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
