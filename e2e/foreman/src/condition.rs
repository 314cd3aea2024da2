//! Conditions, as Foreman writes them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Now, in the whole seconds that Kubernetes keeps.
pub(crate) fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Puts a condition in the place of the one of its type, with the present time, whether anything changed or not (F11).
pub(crate) fn set(conditions: &mut Vec<Condition>, kind: &str, status: bool, reason: &str, message: String) {
    let condition = Condition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: now(),
        observed_generation: None,
    };
    match conditions.iter_mut().find(|found| found.type_ == kind) {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
}
