//! The condition of a `WorkItem` that says what becomes of its failed run.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use taskgate_api::{WorkItemStatus, retry_ledger::CONDITION};

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

/// The condition about retries.
pub fn condition(status: &WorkItemStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == CONDITION)
}

/// Writes the condition; whether it is another one now.
pub(super) fn say(status: &mut WorkItemStatus, said: &Said<'_>, now: Timestamp) -> bool {
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
