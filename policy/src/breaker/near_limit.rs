//! Whether a decision may be made on an older state of the work item: far from the limit, it is the same on every later state.

use jiff::Timestamp;
use taskgate_api::{WorkItemStatus, task_policy::FailurePolicy, work_item::Breaker};

use super::{backoff::next_attempt, evaluate::is_opened_manually};
use crate::decision::Governed;

/// Whether the request is allowed whatever became of the item's `unrecorded` other Tasks: those that are under way, or whose failure
/// `status` does not have yet.
///
/// `status` may be older than the stored one by those Tasks. Even if each of them failed, the failure of this Task would not reach a
/// limit; and with a backoff there must be none of them, because each could have postponed the next attempt. Everything else is
/// near: an item that was reset by now, for example, is only read again.
pub fn is_far_from_limit(
    governed: &Governed<'_>,
    status: Option<&WorkItemStatus>,
    unrecorded: u32,
    now: Timestamp,
) -> bool {
    let nothing = WorkItemStatus::default();
    let status = status.unwrap_or(&nothing);
    let matched = governed.sections.failure;
    matched.is_none_or(|matched| is_far(status, matched.rule, unrecorded, now))
}

fn is_far(status: &WorkItemStatus, policy: &FailurePolicy, unrecorded: u32, now: Timestamp) -> bool {
    let below = |failures: u32, limit: u32| {
        let failures = failures.saturating_add(unrecorded).saturating_add(1);
        limit == 0 || failures < limit
    };
    let closed = matches!(status.breaker, None | Some(Breaker::Closed)) && !is_opened_manually(status);
    let limited = policy.max_retries_per_item > 0;
    let within_limits = !limited
        || (closed
            && below(status.consecutive_failures, policy.max_retries_per_item)
            && below(status.infrastructure_failures, policy.max_infrastructure_failures));
    let without_wait =
        policy.backoff.is_none() || (unrecorded == 0 && next_attempt(status, policy).is_none_or(|at| at <= now));
    within_limits && without_wait
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;
    use taskgate_api::work_item::{Attempt, Outcome};

    use super::*;
    use crate::breaker::{
        ItemSnapshot, allowance,
        attempt_history::{record, refresh},
        evaluate::refusal,
    };

    fn policy(limit: u32, infrastructure: u32, backoff: bool) -> FailurePolicy {
        let backoff =
            backoff.then(|| serde_json::from_value(serde_json::json!({"initial": "1m", "max": "1h"})).unwrap());
        FailurePolicy {
            max_retries_per_item: limit,
            max_infrastructure_failures: infrastructure,
            backoff,
            ..FailurePolicy::default()
        }
    }

    fn status(breaker: Option<Breaker>, failures: u32, infrastructure: u32) -> WorkItemStatus {
        WorkItemStatus {
            breaker,
            consecutive_failures: failures,
            infrastructure_failures: infrastructure,
            last_failure_time: Some(Time(Timestamp::UNIX_EPOCH)),
            ..WorkItemStatus::default()
        }
    }

    #[test]
    fn an_item_is_far_from_its_limit_while_one_more_failure_cannot_reach_it() {
        let soon: Timestamp = "1970-01-01T00:00:30Z".parse().unwrap();
        let later: Timestamp = "1970-01-01T01:00:00Z".parse().unwrap();
        let (open, closed) = (Some(Breaker::Open), Some(Breaker::Closed));
        for (known, policy, unrecorded, now, far) in [
            (status(None, 0, 0), policy(3, 10, false), 0, soon, true),
            (status(closed, 1, 0), policy(3, 10, false), 0, soon, true),
            (status(closed, 2, 0), policy(3, 10, false), 0, soon, false),
            (status(None, 0, 0), policy(3, 10, false), 1, soon, true),
            (status(None, 0, 0), policy(3, 10, false), 2, soon, false),
            (status(None, 0, 0), policy(1, 10, false), 0, soon, false),
            // Failures of the cluster have their own limit, or none.
            (status(None, 0, 9), policy(50, 10, false), 0, soon, false),
            (status(None, 0, 9), policy(50, 0, false), 0, soon, true),
            // A user opened it, or the limit was raised since.
            (status(open, 0, 0), policy(50, 10, false), 0, soon, false),
            (status(open, 3, 0), policy(50, 10, false), 0, soon, false),
            // There is no limit, but a wait.
            (status(open, 9, 99), policy(0, 10, false), 99, soon, true),
            (status(None, 1, 0), policy(0, 10, true), 0, soon, false),
            (status(None, 1, 0), policy(0, 10, true), 0, later, true),
            (status(None, 1, 0), policy(0, 10, true), 1, later, false),
            (status(None, u32::MAX, 0), policy(3, 10, false), u32::MAX, later, false),
        ] {
            let found = is_far(&known, &policy, unrecorded, now);
            assert_eq!(found, far, "{known:?} {policy:?} {unrecorded} {now}");
        }
    }

    fn ended(index: usize, outcome: Outcome, at: Timestamp) -> Attempt {
        serde_json::from_value(serde_json::json!({
            "uid": format!("unrecorded-{index}"), "name": "t", "outcome": outcome, "completionTime": at.to_string(),
        }))
        .unwrap()
    }

    proptest! {
        /// Each of the Tasks goes on, or its end is recorded, in any order and at any time until now.
        #[test]
        fn what_is_far_from_the_limit_stays_allowed(
            known in (prop_oneof![Just(None), Just(Some(Breaker::Closed)), Just(Some(Breaker::Open))], 0..6_u32, 0..6_u32),
            rule in (0..8_u32, 0..8_u32, any::<bool>()),
            ends in proptest::collection::vec((0..6_u8, 0..7_200_i64), 0..6),
        ) {
            let now = Timestamp::from_second(7_200).unwrap();
            let (mut status, policy) = (status(known.0, known.1, known.2), policy(rule.0, rule.1, rule.2));
            let unrecorded = u32::try_from(ends.len()).unwrap();
            let far = is_far(&status, &policy, unrecorded, now);
            let mut active = 0;
            for (index, (end, at)) in ends.into_iter().enumerate() {
                let at = Timestamp::from_second(at).unwrap();
                let outcome = match end {
                    0 => Outcome::Succeeded,
                    1 | 2 => Outcome::Failed,
                    3 => Outcome::Infrastructure,
                    4 => Outcome::Cancelled,
                    _ => {
                        active += 1;
                        continue;
                    }
                };
                status = record(&status, ended(index, outcome, at), Some(&policy), at).unwrap_or(status);
                status = refresh(&status, Some(&policy), at).unwrap_or(status);
            }
            let item = ItemSnapshot { status: Some(&status), active: Some(active) };
            if far {
                prop_assert_eq!(refusal(item, &policy, now), None, "{:?} {:?}", status, policy);
                prop_assert!(active < allowance(&status, &policy, now));
            }
        }
    }
}
