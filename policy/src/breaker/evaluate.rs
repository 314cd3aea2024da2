//! Evaluates the circuit breaker of a work item: whether one more Task may be created, and whether one that was created may run.

use jiff::Timestamp;
use taskgate_api::{WorkItemStatus, keys, task_policy::FailurePolicy, work_item::Breaker};

use super::backoff::{next_attempt, signed};
use crate::{
    decision::{BreakerRefusal, Detail, Effect, Finding, Governed},
    kubernetes::Edit,
    matching::Section,
};

/// A work item at the moment of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ItemSnapshot<'a> {
    /// The status of its `WorkItem`; `None` when there is none.
    pub status: Option<&'a WorkItemStatus>,
    /// How many other Tasks of the item are under way. For a Job: how many older Tasks. `None` when they were not counted, which
    /// is right only far from the limit.
    pub active: Option<u32>,
}

impl<'a> From<Option<&'a WorkItemStatus>> for ItemSnapshot<'a> {
    fn from(status: Option<&'a WorkItemStatus>) -> Self {
        Self { status, active: None }
    }
}

/// The state of the breaker of an item with `status`, under `policy`, at `now`.
///
/// The count is compared with the current limit, so that a change of the policy takes effect at once, in both directions.
/// A breaker that is `Open` without any failure was opened manually, and stays open.
pub fn breaker_state(status: &WorkItemStatus, policy: &FailurePolicy, now: Timestamp) -> Breaker {
    if open_reason(status, policy).is_none() {
        return Breaker::Closed;
    }
    let since = status.opened_at.as_ref().or(status.last_failure_time.as_ref());
    let waited = since.map(|since| now.duration_since(since.0));
    match (policy.reset_after, waited) {
        (Some(reset_after), Some(waited)) if waited >= signed(reset_after) => Breaker::HalfOpen,
        _ => Breaker::Open,
    }
}

/// Why the item is open under `policy`, whatever the time.
pub(crate) fn open_reason(status: &WorkItemStatus, policy: &FailurePolicy) -> Option<BreakerRefusal> {
    let (limit, infrastructure_limit) = (policy.max_retries_per_item, policy.max_infrastructure_failures);
    if limit == 0 {
        None
    } else if status.consecutive_failures >= limit {
        Some(BreakerRefusal::Failures)
    } else if infrastructure_limit > 0 && status.infrastructure_failures >= infrastructure_limit {
        Some(BreakerRefusal::Infrastructure {
            failures: status.infrastructure_failures,
            limit: infrastructure_limit,
        })
    } else {
        is_opened_manually(status).then_some(BreakerRefusal::OpenedManually)
    }
}

/// Whether a user opened the breaker: it is open although nothing failed.
pub(crate) fn is_opened_manually(status: &WorkItemStatus) -> bool {
    status.breaker == Some(Breaker::Open) && status.consecutive_failures == 0 && status.infrastructure_failures == 0
}

/// How many Tasks of the item may be under way at the same time: the limit holds even if all of them fail.
pub fn allowance(status: &WorkItemStatus, policy: &FailurePolicy, now: Timestamp) -> u32 {
    match breaker_state(status, policy, now) {
        _ if policy.max_retries_per_item == 0 => u32::MAX,
        Breaker::Closed => policy.max_retries_per_item.saturating_sub(status.consecutive_failures),
        Breaker::HalfOpen => 1,
        Breaker::Open => 0,
    }
}

/// Why one more Task may not be made, if it may not.
pub(super) fn refusal(item: ItemSnapshot<'_>, policy: &FailurePolicy, now: Timestamp) -> Option<BreakerRefusal> {
    let nothing = WorkItemStatus::default();
    let status = item.status.unwrap_or(&nothing);
    if policy.max_retries_per_item > 0 {
        let breaker = breaker_state(status, policy, now);
        let active = item.active.unwrap_or(0);
        match breaker {
            Breaker::Open => return open_reason(status, policy),
            Breaker::HalfOpen if active > 0 => return Some(BreakerRefusal::Probe),
            Breaker::Closed if active >= allowance(status, policy, now) => return Some(BreakerRefusal::Active(active)),
            Breaker::HalfOpen => return None,
            Breaker::Closed => {}
        }
    }
    let until = next_attempt(status, policy).filter(|until| *until > now)?;
    Some(BreakerRefusal::Backoff(until))
}

/// Denies a further Task that the item's status does not allow.
pub(crate) fn task_finding<'a>(governed: &Governed<'a>, item: ItemSnapshot<'_>, now: Timestamp) -> Option<Finding<'a>> {
    let matched = governed.sections.failure?;
    let refusal = refusal(item, matched.rule, now)?;
    let detail = detail(governed, item, refusal)?;
    Some(Finding::new(Section::FailurePolicy, &matched, detail, Effect::Deny))
}

/// Stops the Job of an unadmitted Task, or of one that raced with others: it is created suspended, and the controller fails it.
/// Denying it would keep Kelos' branch lock.
pub(crate) fn job_finding<'a>(governed: &Governed<'a>, item: ItemSnapshot<'_>, now: Timestamp) -> Option<Finding<'a>> {
    let matched = governed.sections.failure?;
    let nothing = WorkItemStatus::default();
    let status = item.status.unwrap_or(&nothing);
    let before = item.active.unwrap_or(0);
    if before < allowance(status, matched.rule, now) {
        return None;
    }
    let refusal = match breaker_state(status, matched.rule, now) {
        Breaker::Open => open_reason(status, matched.rule)?,
        Breaker::HalfOpen => BreakerRefusal::Probe,
        Breaker::Closed => BreakerRefusal::Active(before),
    };
    let detail = Detail::JobStopped(Box::new(detail(governed, item, refusal)?));
    let reason = Finding::new(Section::FailurePolicy, &matched, detail.clone(), Effect::Warn).message();
    let edits = vec![Edit::Suspend, Edit::Annotation(keys::STOPPED.into(), reason)];
    Some(Finding::new(
        Section::FailurePolicy,
        &matched,
        detail,
        Effect::Change(edits),
    ))
}

fn detail(governed: &Governed<'_>, snapshot: ItemSnapshot<'_>, refusal: BreakerRefusal) -> Option<Detail> {
    let (matched, item) = governed.sections.failure.zip(governed.identity())?;
    let nothing = WorkItemStatus::default();
    let status = snapshot.status.unwrap_or(&nothing);
    let since = status.opened_at.as_ref().or(status.last_failure_time.as_ref());
    Some(Detail::BreakerOpen {
        item: item.item.clone(),
        work_item: item.work_item_name(),
        namespace: governed.request.namespace.to_owned(),
        failures: status.consecutive_failures,
        limit: matched.rule.max_retries_per_item,
        refusal,
        since: since.map(|since| since.0),
        cost_usd: status.total_cost_usd.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::{
        Breaker::{Closed, HalfOpen, Open},
        *,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_limit_holds_if_all_tasks_under_way_fail() {
        let policy = |limit: u32, reset_after: Option<&str>| FailurePolicy {
            max_retries_per_item: limit,
            reset_after: reset_after.map(|text| text.parse().unwrap()),
            ..FailurePolicy::default()
        };
        let opened = Time(at("2026-11-20T00:00:00Z"));
        for (failures, limit, reset_after, active, expected) in [
            (0, 1, None, 0, None),
            (0, 1, None, 1, Some(BreakerRefusal::Active(1))),
            (1, 3, None, 1, None),
            (1, 3, None, 2, Some(BreakerRefusal::Active(2))),
            (3, 3, None, 0, Some(BreakerRefusal::Failures)),
            (3, 3, Some("1h"), 0, None),
            (3, 3, Some("1h"), 1, Some(BreakerRefusal::Probe)),
            (9, 0, None, 9, None),
        ] {
            let status = WorkItemStatus {
                consecutive_failures: failures,
                opened_at: Some(opened.clone()),
                ..WorkItemStatus::default()
            };
            let item = ItemSnapshot {
                status: Some(&status),
                active: Some(active),
            };
            let now = at("2026-11-21T00:00:00Z");
            assert_eq!(
                refusal(item, &policy(limit, reset_after), now),
                expected,
                "{failures} of {limit}, {active} active, {reset_after:?}"
            );
        }
    }

    #[test]
    fn failures_of_the_cluster_have_their_own_limit() {
        let policy = FailurePolicy {
            max_retries_per_item: 3,
            max_infrastructure_failures: 2,
            ..FailurePolicy::default()
        };
        let item = |failures| WorkItemStatus {
            infrastructure_failures: failures,
            ..WorkItemStatus::default()
        };
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(breaker_state(&item(1), &policy, now), Closed);
        assert_eq!(breaker_state(&item(2), &policy, now), Open);
    }

    #[test]
    fn no_task_comes_before_the_earliest_next_attempt() {
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
        assert!(matches!(ask("2026-11-21T00:30:00Z"), Some(BreakerRefusal::Backoff(_))));
        assert_eq!(ask("2026-11-21T01:10:00Z"), None);
    }

    #[test]
    fn the_count_is_compared_with_the_current_limit() {
        let policy = |limit, reset_after: Option<&str>| FailurePolicy {
            max_retries_per_item: limit,
            reset_after: reset_after.map(|text| text.parse().unwrap()),
            ..FailurePolicy::default()
        };
        let item = |breaker, failures| WorkItemStatus {
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
            let state = breaker_state(&item(breaker, failures), &policy(limit, reset_after), now);
            assert_eq!(
                state, expected,
                "{breaker:?} {failures} of {limit}, {reset_after:?} at {now}"
            );
        }
    }
}
