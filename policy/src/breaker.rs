//! The circuit breaker of a work item (seed 000): whether one more Task may be made.

use jiff::Timestamp;
use taskgate_api::{WorkItemStatus, task_policy::FailurePolicy, work_item::Breaker};

use crate::{
    Detail, ItemIdentity, Section,
    decision::{Effect, Finding},
    select::{Governed, Ruling},
};

/// What a memory and a policy make of each other at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assessment {
    /// Tasks pass.
    Closed,
    /// Tasks are stopped.
    Open,
    /// One probe may pass.
    HalfOpen,
}

/// Whether the item behind `memory` is open under `policy` at `now`.
///
/// The count is held against the limit as it is now, so that changing the policy takes effect at once, in both directions.
/// A breaker that says `Open` without any failure was opened by hand, and stays so.
pub fn assess(memory: &WorkItemStatus, policy: &FailurePolicy, now: Timestamp) -> Assessment {
    let limit = policy.max_retries_per_item;
    let held_by_hand = memory.breaker == Some(Breaker::Open) && memory.consecutive_failures == 0;
    if limit == 0 || !(held_by_hand || memory.consecutive_failures >= limit) {
        return Assessment::Closed;
    }
    let since = memory.opened_at.as_ref().or(memory.last_failure_time.as_ref());
    let waited = since.map(|since| now.duration_since(since.0));
    match (policy.reset_after, waited) {
        (Some(reset_after), Some(waited)) if waited >= duration(reset_after) => Assessment::HalfOpen,
        _ => Assessment::Open,
    }
}

fn duration(duration: taskgate_api::Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(std::time::Duration::from(duration)).unwrap_or(jiff::SignedDuration::MAX)
}

/// Denies a further Task for an open item, whoever asks for it.
pub(crate) fn finding<'a>(
    governed: &Governed<'a>,
    ruling: Ruling<'a, &'a FailurePolicy>,
    item: &ItemIdentity,
    memory: &WorkItemStatus,
    now: Timestamp,
) -> Option<Finding<'a>> {
    if assess(memory, ruling.rule, now) != Assessment::Open {
        return None;
    }
    let since = memory.opened_at.as_ref().or(memory.last_failure_time.as_ref());
    let detail = Detail::BreakerOpen {
        item: item.item.clone(),
        work_item: item.work_item_name(),
        namespace: governed.request.namespace.to_owned(),
        failures: memory.consecutive_failures,
        limit: ruling.rule.max_retries_per_item,
        since: since.map(|since| since.0),
        cost_usd: memory.total_cost_usd.clone(),
    };
    Some(Finding::new(Section::FailurePolicy, &ruling, detail, Effect::Deny))
}

#[cfg(test)]
mod tests {
    use super::Assessment::{Closed, HalfOpen, Open};
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_count_is_held_against_todays_limit() {
        let policy = |limit, reset_after: Option<&str>| FailurePolicy {
            max_retries_per_item: limit,
            reset_after: reset_after.map(|text| text.parse().unwrap()),
            ..FailurePolicy::default()
        };
        let memory = |breaker, failures| WorkItemStatus {
            breaker,
            consecutive_failures: failures,
            opened_at: Some(Time(at("2026-11-20T10:00:00Z"))),
            ..WorkItemStatus::default()
        };
        let now = at("2026-11-21T09:59:59Z");
        let day = Some("24h");
        for (breaker, failures, limit, reset_after, now, expected) in [
            (None, 0, 3, None, now, Closed),
            (None, 2, 3, None, now, Closed),
            (None, 3, 3, None, now, Open),
            (Some(Breaker::Closed), 3, 3, None, now, Open),
            (Some(Breaker::Open), 3, 5, None, now, Closed),
            (Some(Breaker::Open), 3, 1, None, now, Open),
            (Some(Breaker::Open), 3, 0, None, now, Closed),
            (Some(Breaker::Open), 0, 3, None, now, Open),
            (None, 1, 1, None, now, Open),
            (None, u32::MAX, 1000, None, now, Open),
            (Some(Breaker::Open), 3, 3, day, now, Open),
            (Some(Breaker::Open), 3, 3, day, at("2026-11-21T10:00:00Z"), HalfOpen),
            // A clock that jumped back keeps the breaker open.
            (Some(Breaker::Open), 3, 3, day, at("2020-01-01T00:00:00Z"), Open),
        ] {
            let assessed = assess(&memory(breaker, failures), &policy(limit, reset_after), now);
            assert_eq!(
                assessed, expected,
                "{breaker:?} {failures} of {limit}, {reset_after:?} at {now}"
            );
        }
    }
}
