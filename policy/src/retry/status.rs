//! The retry status of a `WorkItem`: what each step of a retry writes, and the condition `Retry`. Each function returns the new
//! status, or `None` when the status has it already or is about another retry by now, so that every step can be repeated.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;
use taskgate_api::{
    WorkItemStatus,
    retry_status::{Blocked, CONDITION, FailureClass, RetryStage, RetryStatus, RunFailure, RunRef, Transition},
    task_policy::RetriedKind,
    work_item::{Attempt, Reset},
};

use super::{FailureCause, GivenUp, NextAttempt, Stopped};
use crate::{
    breaker::record,
    kubernetes::{clip, in_a_row},
};

/// The condition about retries, if it is set.
pub fn condition(status: &WorkItemStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == CONDITION)
}

/// Sets the condition; whether it changed. It is `True` while a retry is under way or has succeeded.
fn set_condition(status: &mut WorkItemStatus, is_true: bool, reason: &str, message: &str, now: Timestamp) -> bool {
    let new = Condition {
        type_: CONDITION.to_owned(),
        status: if is_true { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: clip(message, 1024),
        last_transition_time: Time(now),
        observed_generation: None,
    };
    let conditions = &mut status.conditions;
    let Some(old) = conditions.iter_mut().find(|condition| condition.type_ == CONDITION) else {
        conditions.push(new);
        return true;
    };
    if old.status == new.status && old.reason == new.reason && old.message == new.message {
        return false;
    }
    let since = if old.status == new.status {
        old.last_transition_time.clone()
    } else {
        new.last_transition_time
    };
    *old = Condition {
        last_transition_time: since,
        observed_generation: old.observed_generation,
        ..new
    };
    true
}

/// How many UIDs of failed objects a status lists besides its latest run.
const ASIDE: usize = 50;

/// A run failed: its end is recorded in the history, unless it is there already, and the status is about it from now on.
pub fn failed(
    status: &WorkItemStatus,
    run: &RunRef,
    number: u32,
    attempt: Attempt,
    failure: &FailureCause,
    now: Timestamp,
) -> Option<WorkItemStatus> {
    let mut next = recorded(status, run, attempt, now);
    let retry = next.retry.get_or_insert_default();
    let is_same = |known: &RunFailure| known.reason == failure.reason;
    let known = retry.run.as_ref() == Some(run) && retry.failure.as_ref().is_some_and(is_same);
    if known || retry.transition.is_some() {
        return None;
    }
    let before = retry
        .run
        .take()
        .filter(|before| before.uid != run.uid && retry.failure.is_some());
    retry.aside.retain(|uid| *uid != run.uid);
    retry.aside.extend(before.map(|before| before.uid));
    let surplus = retry.aside.len().saturating_sub(ASIDE);
    retry.aside.drain(..surplus);
    retry.attempt = number;
    retry.run = Some(run.clone());
    retry.failure = Some(RunFailure {
        class: failure.class,
        reason: failure.reason.clone(),
        time: Time(now),
        next_attempt_time: None,
    });
    Some(next)
}

/// The status with `attempt` in its history. A Workload may run again under its UID: another end replaces the one before.
fn recorded(status: &WorkItemStatus, run: &RunRef, attempt: Attempt, now: Timestamp) -> WorkItemStatus {
    let mut before = status.clone();
    let is_superseded =
        |known: &Attempt| run.kind == RetriedKind::Workload && known.uid == run.uid && known.reason != attempt.reason;
    before.attempts.retain(|known| !is_superseded(known));
    record(&before, attempt, None, now).unwrap_or(before)
}

/// The object of a failed run runs again, and taskgate did not retry it: a user repaired the Workload or deleted a child. Its end is
/// classified anew.
pub fn revived(status: &WorkItemStatus, uid: &str, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let retry = next.retry.as_mut()?;
    let run = retry.run.as_ref().filter(|run| run.uid == uid)?;
    let message = format!("{} {} is not failed any more: it runs again", run.kind, run.name);
    if retry.transition.is_some() || retry.failure.take().is_none() {
        return None;
    }
    set_condition(&mut next, false, Stopped::Revived.reason(), &message, now);
    Some(next)
}

/// A run succeeded: its item's earlier failures are reset.
///
/// An object that is older than the recorded failure changes nothing.
pub fn succeeded(
    status: &WorkItemStatus,
    run: &RunRef,
    created: Timestamp,
    attempt: Attempt,
    now: Timestamp,
) -> Option<WorkItemStatus> {
    let retry = status.retry.as_ref().filter(|retry| retry.transition.is_none())?;
    let same = retry.run.as_ref() == Some(run);
    if !same && retry.failure.as_ref().is_some_and(|failure| failure.time.0 > created) {
        return None;
    }
    let mut next = record(status, attempt, None, now)?;
    let retry = next.retry.get_or_insert_default();
    retry.attempt = 0;
    retry.run = Some(run.clone());
    retry.failure = None;
    let message = format!("{run} succeeded");
    set_condition(&mut next, true, "Succeeded", &message, now);
    Some(next)
}

/// The reason of the condition while the backoff of a failed run lasts.
pub const BACKING_OFF: &str = "BackingOff";

/// A failed run is retried after its backoff.
pub fn scheduled(status: &WorkItemStatus, uid: &str, attempt: NextAttempt, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let retry = next.retry.as_mut().filter(|retry| retry.transition.is_none())?;
    let run = retry.run.as_ref().filter(|run| run.uid == uid)?;
    let failure = retry.failure.as_mut()?;
    let NextAttempt { to, limit, due } = attempt;
    let message = format!(
        "{} {} failed ({}) at attempt {} of {limit} and runs again as attempt {to} at {due}",
        run.kind, run.name, failure.reason, retry.attempt,
    );
    failure.next_attempt_time = Some(Time(due));
    set_condition(&mut next, true, BACKING_OFF, &message, now).then_some(next)
}

/// A failed run is not retried, for this reason. The object itself is not touched: any write to a failed Workload can start it
/// again (foreman §2.2).
pub fn gave_up(status: &WorkItemStatus, uid: &str, why: GivenUp, now: Timestamp) -> Option<WorkItemStatus> {
    let retry = status.retry.as_ref()?;
    let run = retry.run.as_ref().filter(|run| run.uid == uid)?;
    let reason = retry.failure.as_ref().map_or("", |failure| &failure.reason);
    let message = match why {
        GivenUp::Attempts { attempt, limit } if attempt > limit => {
            format!("{run} failed ({reason}) at attempt {attempt}, beyond the limit of {limit}, and stays as it is")
        }
        GivenUp::Attempts { attempt, limit } => {
            format!("{run} failed ({reason}) at attempt {attempt} of {limit} and stays as it is")
        }
        GivenUp::Infrastructure { failures, limit } => {
            format!(
                "the cluster failed {run} ({reason}) {}, limit {limit}: it stays as it is",
                in_a_row(failures)
            )
        }
        GivenUp::Human => format!("{run} failed with {reason}: a user has to act"),
        GivenUp::Obsolete => format!("{run} failed, and its source is closed: nothing is left to do"),
        GivenUp::Unwanted => format!("no policy retries {run} any more: it stays as it is"),
        GivenUp::OnlyObserved { to } => format!("{run} failed ({reason}) and would be run again as attempt {to}"),
    };
    let mut next = status.clone();
    if let Some(failure) = next.retry.as_mut().and_then(|retry| retry.failure.as_mut()) {
        failure.next_attempt_time = None;
        if why == GivenUp::Obsolete {
            // The source stays closed: it is not read again.
            failure.class = FailureClass::Obsolete;
        }
    }
    set_condition(&mut next, false, why.reason(), &message, now).then_some(next)
}

/// The successor that taskgate created and whose end is not recorded, if there is one.
pub fn running_successor(status: &WorkItemStatus) -> Option<&RunRef> {
    let retry = status.retry.as_ref()?;
    let is_open = retry.attempt > 0 && retry.failure.is_none() && retry.transition.is_none();
    let has_ended = |run: &RunRef| status.attempts.iter().any(|attempt| attempt.uid == run.uid);
    retry.run.as_ref().filter(|run| is_open && !has_ended(run))
}

/// A user or another controller deleted the successor before its end was recorded: a run without an end does not count.
pub fn successor_deleted(status: &WorkItemStatus, uid: &str, now: Timestamp) -> Option<WorkItemStatus> {
    let run = running_successor(status).filter(|run| run.uid == uid)?;
    let mut next = status.clone();
    let retry = next.retry.as_mut()?;
    let message = format!(
        "{} {} (attempt {}) was deleted before its end was recorded, and not by taskgate: it is not created again and does not count",
        run.kind, run.name, retry.attempt,
    );
    retry.attempt -= 1;
    retry.run = None;
    set_condition(&mut next, false, Stopped::Deleted.reason(), &message, now);
    Some(next)
}

/// A user or another controller deleted the object of a failed run. A count at its limit is reset; any other count goes on.
pub fn run_deleted(status: &WorkItemStatus, uid: &str, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let retry = next.retry.as_mut()?;
    let known = retry.run.as_ref().is_some_and(|run| run.uid == uid);
    let run = retry
        .run
        .clone()
        .filter(|_| known && retry.transition.is_none() && retry.failure.is_some())?;
    retry.failure = None;
    let was_limit = condition(status).is_some_and(|condition| GivenUp::is_limit(&condition.reason));
    let message = if was_limit {
        retry.attempt = 0;
        next.consecutive_failures = 0;
        next.infrastructure_failures = 0;
        next.last_reset = Some(Reset {
            time: Time(now),
            reason: "TombstoneDeleted".to_owned(),
            task_uid: Some(run.uid.clone()),
            by: None,
            message: None,
        });
        format!("{run} was deleted, and not by taskgate: the count starts over")
    } else {
        format!("{run} was deleted, and not by taskgate: it is not created again")
    };
    set_condition(&mut next, false, Stopped::Deleted.reason(), &message, now);
    Some(next)
}

/// A retry is decided.
pub fn begun(status: &WorkItemStatus, transition: &Transition, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let retry = next.retry.as_mut()?;
    let current = retry.run.as_ref() == Some(&transition.old) && retry.transition.is_none();
    if !current {
        return None;
    }
    retry.transition = Some(transition.clone());
    if let Some(failure) = &mut retry.failure {
        failure.next_attempt_time = None;
    }
    let Transition { old, from, to, .. } = transition;
    let why = match (&transition.requested_by, from == to) {
        (Some(by), _) => format!("asked for by {by}"),
        (None, true) => "the cluster failed it, the number stays".to_owned(),
        (None, false) => format!("attempt {from} failed"),
    };
    let message = format!("{old} is to be run again as attempt {to}: {why}");
    set_condition(&mut next, true, "Planned", &message, now);
    Some(next)
}

/// The parts of the predecessor that are recorded before it is deleted.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The version that was read.
    pub resource_version: String,
    /// The object that its successor is built from.
    pub predecessor: Value,
    /// Why it failed.
    pub feedback: Option<String>,
    /// The names of its children.
    pub children: Vec<String>,
}

/// The predecessor is about to be deleted.
pub fn prepared(status: &WorkItemStatus, uid: &str, prepared: &Prepared, now: Timestamp) -> Option<WorkItemStatus> {
    change(status, uid, RetryStage::Planned, now, |transition| {
        transition.step = RetryStage::Deleting;
        transition.blocked = None;
        transition.resource_version.clone_from(&prepared.resource_version);
        transition.predecessor = Some(prepared.predecessor.clone());
        transition.feedback.clone_from(&prepared.feedback);
        transition.children.clone_from(&prepared.children);
        ("Deleting", "is about to be deleted: its successor would be admitted")
    })
}

/// The predecessor changed meanwhile: it is read again.
pub fn replanned(status: &WorkItemStatus, uid: &str, now: Timestamp) -> Option<WorkItemStatus> {
    change(status, uid, RetryStage::Deleting, now, |transition| {
        transition.step = RetryStage::Planned;
        transition.predecessor = None;
        ("Planned", "changed meanwhile and is read again")
    })
}

/// taskgate deleted the predecessor.
pub fn deleted(status: &WorkItemStatus, uid: &str, now: Timestamp) -> Option<WorkItemStatus> {
    change(status, uid, RetryStage::Deleting, now, |transition| {
        transition.step = RetryStage::Deleted;
        (
            "Deleted",
            "is deleted; its successor is created once nothing is left of it",
        )
    })
}

/// Something blocks the retry.
pub fn blocked(status: &WorkItemStatus, uid: &str, blocked: &Blocked, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let transition = next
        .retry
        .as_mut()?
        .transition
        .as_mut()
        .filter(|known| known.old.uid == uid)?;
    let same = |known: &Blocked| known.reason == blocked.reason && known.message == blocked.message;
    if transition.blocked.as_ref().is_some_and(same) {
        return None;
    }
    transition.blocked = Some(blocked.clone());
    set_condition(&mut next, false, &blocked.reason, &blocked.message, now);
    Some(next)
}

/// The successor exists.
pub fn closed(status: &WorkItemStatus, uid: &str, successor: &str, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let retry = next.retry.as_mut()?;
    let transition = take(retry, uid)?;
    let Transition { old, to, from, .. } = transition;
    let message = format!("{old} runs again as attempt {to}, after {from}");
    retry.attempt = to;
    retry.failure = None;
    retry.run = Some(RunRef {
        uid: successor.to_owned(),
        ..old
    });
    set_condition(&mut next, true, "Recreated", &message, now);
    Some(next)
}

/// The retry is dropped. The number stays: the next run of the item continues from it.
pub fn stopped(status: &WorkItemStatus, uid: &str, why: Stopped, now: Timestamp) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let retry = next.retry.as_mut()?;
    let transition = take(retry, uid)?;
    retry.failure = None;
    let run = &transition.old;
    let message = match why {
        Stopped::Deleted => format!("{run} was deleted, and not by taskgate: it is not created again"),
        Stopped::Replaced => format!("another client created a new {run}: it is not retried"),
        Stopped::Revived => format!("{run} is not failed any more: it is not retried"),
        Stopped::Unwanted => format!("no policy retries {run} any more"),
        Stopped::Invalid(why) => format!("the retry of {run} is dropped: {why}"),
    };
    set_condition(&mut next, false, why.reason(), &message, now);
    Some(next)
}

fn take(retry: &mut RetryStatus, uid: &str) -> Option<Transition> {
    let ours = retry.transition.as_ref().is_some_and(|known| known.old.uid == uid);
    if ours { retry.transition.take() } else { None }
}

/// Moves the transition of `uid` on from the step `from`: `change` returns the reason and the end of the condition's message.
fn change(
    status: &WorkItemStatus,
    uid: &str,
    from: RetryStage,
    now: Timestamp,
    change: impl FnOnce(&mut Transition) -> (&'static str, &'static str),
) -> Option<WorkItemStatus> {
    let mut next = status.clone();
    let transition = next.retry.as_mut()?.transition.as_mut();
    let transition = transition.filter(|known| known.old.uid == uid && known.step == from)?;
    let run = transition.old.to_string();
    transition.since = Time(now);
    let (reason, what) = change(transition);
    set_condition(&mut next, true, reason, &format!("{run} {what}"), now);
    Some(next)
}
