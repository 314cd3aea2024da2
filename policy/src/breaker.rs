//! The circuit breaker of a work item (seed 000): whether one more Task may be made, and whether one that was made may run.

use jiff::Timestamp;
use taskgate_api::{WorkItemStatus, keys, task_policy::FailurePolicy, work_item::Breaker};

use crate::{
    Detail, Refusal, Section,
    backoff::{next_attempt, signed},
    decision::{Effect, Finding},
    patch::Edit,
    select::Governed,
};

/// What is known of a work item at the moment of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory<'a> {
    /// What is remembered; `None` when nothing is.
    pub status: Option<&'a WorkItemStatus>,
    /// How many other Tasks of the item are under way. For a Job: how many Tasks that came before its own. `None` when
    /// nobody looked, which is right only far from the limit.
    pub active: Option<u32>,
}

impl<'a> From<Option<&'a WorkItemStatus>> for Memory<'a> {
    fn from(status: Option<&'a WorkItemStatus>) -> Self {
        Self { status, active: None }
    }
}

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

impl From<Assessment> for Breaker {
    fn from(assessment: Assessment) -> Self {
        match assessment {
            Assessment::Closed => Self::Closed,
            Assessment::Open => Self::Open,
            Assessment::HalfOpen => Self::HalfOpen,
        }
    }
}

/// Whether the item behind `memory` is open under `policy` at `now`.
///
/// The count is held against the limit as it is now, so that changing the policy takes effect at once, in both directions.
/// A breaker that says `Open` without any failure was opened by hand, and stays so.
pub fn assess(memory: &WorkItemStatus, policy: &FailurePolicy, now: Timestamp) -> Assessment {
    if why_open(memory, policy).is_none() {
        return Assessment::Closed;
    }
    let since = memory.opened_at.as_ref().or(memory.last_failure_time.as_ref());
    let waited = since.map(|since| now.duration_since(since.0));
    match (policy.reset_after, waited) {
        (Some(reset_after), Some(waited)) if waited >= signed(reset_after) => Assessment::HalfOpen,
        _ => Assessment::Open,
    }
}

/// What keeps the item open under `policy`, whatever the time.
pub(crate) fn why_open(memory: &WorkItemStatus, policy: &FailurePolicy) -> Option<Refusal> {
    let (limit, cap) = (policy.max_retries_per_item, policy.max_infrastructure_failures);
    if limit == 0 {
        None
    } else if memory.consecutive_failures >= limit {
        Some(Refusal::Failures)
    } else if cap > 0 && memory.infrastructure_failures >= cap {
        Some(Refusal::Infrastructure {
            failures: memory.infrastructure_failures,
            limit: cap,
        })
    } else {
        is_held(memory).then_some(Refusal::ByHand)
    }
}

/// Whether somebody opened the breaker by hand: it is open although nothing failed.
pub(crate) fn is_held(memory: &WorkItemStatus) -> bool {
    memory.breaker == Some(Breaker::Open) && memory.consecutive_failures == 0 && memory.infrastructure_failures == 0
}

/// How many Tasks of the item may be under way at the same time: so many that, should all of them fail, the limit holds.
pub fn allowance(memory: &WorkItemStatus, policy: &FailurePolicy, now: Timestamp) -> u32 {
    match assess(memory, policy, now) {
        _ if policy.max_retries_per_item == 0 => u32::MAX,
        Assessment::Closed => policy.max_retries_per_item.saturating_sub(memory.consecutive_failures),
        Assessment::HalfOpen => 1,
        Assessment::Open => 0,
    }
}

/// Why one more Task may not be made, if it may not.
fn refusal(memory: Memory<'_>, policy: &FailurePolicy, now: Timestamp) -> Option<Refusal> {
    let nothing = WorkItemStatus::default();
    let status = memory.status.unwrap_or(&nothing);
    if policy.max_retries_per_item > 0 {
        let assessment = assess(status, policy, now);
        let active = memory.active.unwrap_or(0);
        match assessment {
            Assessment::Open => return why_open(status, policy),
            Assessment::HalfOpen if active > 0 => return Some(Refusal::Probe),
            Assessment::Closed if active >= allowance(status, policy, now) => return Some(Refusal::Active(active)),
            Assessment::HalfOpen => return None,
            Assessment::Closed => {}
        }
    }
    let until = next_attempt(status, policy).filter(|until| *until > now)?;
    Some(Refusal::Backoff(until))
}

/// Denies a further Task where the item's memory does not allow it, whoever asks.
pub(crate) fn task_finding<'a>(governed: &Governed<'a>, memory: Memory<'_>, now: Timestamp) -> Option<Finding<'a>> {
    let ruling = governed.sections.failure?;
    let refusal = refusal(memory, ruling.rule, now)?;
    let detail = detail(governed, memory, refusal)?;
    Some(Finding::new(Section::FailurePolicy, &ruling, detail, Effect::Deny))
}

/// Stops the Job of a Task that slipped past the breaker: it is made, suspended, and the controller fails it. Denying it
/// would keep Kelos' branch lock (kelos T1, T2).
pub(crate) fn job_finding<'a>(governed: &Governed<'a>, memory: Memory<'_>, now: Timestamp) -> Option<Finding<'a>> {
    let ruling = governed.sections.failure?;
    let nothing = WorkItemStatus::default();
    let status = memory.status.unwrap_or(&nothing);
    let before = memory.active.unwrap_or(0);
    if before < allowance(status, ruling.rule, now) {
        return None;
    }
    let refusal = match assess(status, ruling.rule, now) {
        Assessment::Open => why_open(status, ruling.rule)?,
        Assessment::HalfOpen => Refusal::Probe,
        Assessment::Closed => Refusal::Active(before),
    };
    let detail = Detail::JobStopped(Box::new(detail(governed, memory, refusal)?));
    let reason = Finding::new(Section::FailurePolicy, &ruling, detail.clone(), Effect::Tell).message();
    let edits = vec![Edit::Suspend, Edit::Annotation(keys::STOPPED.into(), reason)];
    Some(Finding::new(
        Section::FailurePolicy,
        &ruling,
        detail,
        Effect::Change(edits),
    ))
}

fn detail(governed: &Governed<'_>, memory: Memory<'_>, refusal: Refusal) -> Option<Detail> {
    let (ruling, item) = governed.sections.failure.zip(governed.identity())?;
    let nothing = WorkItemStatus::default();
    let status = memory.status.unwrap_or(&nothing);
    let since = status.opened_at.as_ref().or(status.last_failure_time.as_ref());
    Some(Detail::BreakerOpen {
        item: item.item.clone(),
        work_item: item.work_item_name(),
        namespace: governed.request.namespace.to_owned(),
        failures: status.consecutive_failures,
        limit: ruling.rule.max_retries_per_item,
        refusal,
        since: since.map(|since| since.0),
        cost_usd: status.total_cost_usd.clone(),
    })
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
    fn so_many_may_be_under_way_that_the_limit_holds_if_all_fail() {
        let policy = |limit: u32, reset_after: Option<&str>| FailurePolicy {
            max_retries_per_item: limit,
            reset_after: reset_after.map(|text| text.parse().unwrap()),
            ..FailurePolicy::default()
        };
        let opened = Time(at("2026-11-20T00:00:00Z"));
        for (failures, limit, reset_after, active, expected) in [
            (0, 1, None, 0, None),
            (0, 1, None, 1, Some(Refusal::Active(1))),
            (1, 3, None, 1, None),
            (1, 3, None, 2, Some(Refusal::Active(2))),
            (3, 3, None, 0, Some(Refusal::Failures)),
            (3, 3, Some("1h"), 0, None),
            (3, 3, Some("1h"), 1, Some(Refusal::Probe)),
            (9, 0, None, 9, None),
        ] {
            let status = WorkItemStatus {
                consecutive_failures: failures,
                opened_at: Some(opened.clone()),
                ..WorkItemStatus::default()
            };
            let memory = Memory {
                status: Some(&status),
                active: Some(active),
            };
            let now = at("2026-11-21T00:00:00Z");
            assert_eq!(
                refusal(memory, &policy(limit, reset_after), now),
                expected,
                "{failures} of {limit}, {active} active, {reset_after:?}"
            );
        }
    }

    #[test]
    fn failures_of_the_cluster_have_their_own_cap() {
        let policy = FailurePolicy {
            max_retries_per_item: 3,
            max_infrastructure_failures: 2,
            ..FailurePolicy::default()
        };
        let memory = |failures| WorkItemStatus {
            infrastructure_failures: failures,
            ..WorkItemStatus::default()
        };
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(assess(&memory(1), &policy, now), Closed);
        assert_eq!(assess(&memory(2), &policy, now), Open);
    }

    #[test]
    fn nobody_comes_before_the_earliest_next_attempt() {
        let policy: FailurePolicy = serde_json::from_value(serde_json::json!({
            "maxRetriesPerItem": 3, "backoff": {"initial": "1h", "max": "1h"},
        }))
        .unwrap();
        let status = WorkItemStatus {
            consecutive_failures: 1,
            last_failure_time: Some(Time(at("2026-11-21T00:00:00Z"))),
            ..WorkItemStatus::default()
        };
        let ask = |now| refusal(Some(&status).into(), &policy, at(now));
        assert!(matches!(ask("2026-11-21T00:30:00Z"), Some(Refusal::Backoff(_))));
        assert_eq!(ask("2026-11-21T01:10:00Z"), None);
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
