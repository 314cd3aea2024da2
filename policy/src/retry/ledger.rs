//! What is written into the status of a `WorkItem` about runs that ended. Each function gives the new status, or `None` when it says so
//! already or speaks of another retry by now: every step can be taken twice.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use taskgate_api::{
    WorkItemStatus,
    retry_ledger::{FailureClass, RunFailure, RunRef},
    work_item::{Attempt, Reset},
};

use super::{
    Failure, GivenUp, Stopped,
    condition::{Said, condition, say},
};
use crate::ledger::record;

/// How many failed objects of an item are kept apart from the one that its ledger speaks of.
const ASIDE: usize = 50;

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
    let said = Said {
        status: true,
        reason: "Succeeded",
        message: format!("{} {} succeeded", run.kind.as_str(), run.name),
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
    // What its tracker said holds: nobody is asked again.
    let failure = next.retry.as_mut().and_then(|ledger| ledger.failure.as_mut());
    if let Some(failure) = failure.filter(|_| why == GivenUp::Obsolete) {
        failure.class = FailureClass::Obsolete;
    }
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
