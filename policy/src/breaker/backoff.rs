//! The earliest next attempt after a failure.

use jiff::{SignedDuration, Timestamp};
use taskgate_api::{
    Duration, WorkItemStatus,
    task_policy::{Backoff, FailurePolicy},
    work_item::{Attempt, Outcome},
};

use crate::kubernetes::sha256;

/// The earliest moment at which a further Task may be made, when the policy asks for a wait and there was a failure.
///
/// `initial` after the first failure, times `factor` for each further one, never more than `max`, and up to a tenth less
/// or more of that, so that items that failed together do not come back together. The jitter is drawn from the failed
/// Task's UID: every replica and the controller find the same moment.
pub fn next_attempt(status: &WorkItemStatus, policy: &FailurePolicy) -> Option<Timestamp> {
    let backoff = policy.backoff.as_ref()?;
    let failures = status
        .consecutive_failures
        .saturating_add(status.infrastructure_failures);
    let last = status.last_failure_time.as_ref().filter(|_| failures > 0)?.0;
    let seed = status.attempts.iter().rev().find(|attempt| is_failure(attempt));
    let wait = jittered(wait(backoff, failures), seed.map_or("", |attempt| &attempt.uid));
    last.checked_add(wait).ok()
}

fn is_failure(attempt: &Attempt) -> bool {
    matches!(attempt.outcome, Outcome::Failed | Outcome::Infrastructure)
}

/// The wait after so many failures, without jitter.
pub(crate) fn wait(backoff: &Backoff, failures: u32) -> SignedDuration {
    let max = signed(backoff.max);
    let mut wait = signed(backoff.initial);
    for _ in 1..failures {
        if wait >= max || wait.is_zero() || backoff.factor <= 1 {
            break;
        }
        let factor = i32::try_from(backoff.factor).unwrap_or(i32::MAX);
        wait = wait.checked_mul(factor).unwrap_or(max);
    }
    wait.min(max)
}

/// `wait` times 0.9 to 1.1.
pub(crate) fn jittered(wait: SignedDuration, seed: &str) -> SignedDuration {
    let percent = 90 + i128::from(sha256(seed.as_bytes())[0] % 21);
    let nanos = wait.as_nanos().saturating_mul(percent) / 100;
    SignedDuration::from_nanos_i128(nanos.min(SignedDuration::MAX.as_nanos()))
}

/// A Go duration as signed time; what does not fit is the longest there is.
pub(crate) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(std::time::Duration::from(duration)).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    #[test]
    fn the_wait_doubles_up_to_its_limit_within_a_tenth() {
        let policy: FailurePolicy =
            serde_json::from_value(json!({"backoff": {"initial": "1m", "max": "10m"}})).unwrap();
        let start: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        for (failures, seconds) in [(1, 60), (2, 120), (3, 240), (4, 480), (5, 600), (u32::MAX, 600)] {
            let status = WorkItemStatus {
                consecutive_failures: failures,
                last_failure_time: Some(Time(start)),
                ..WorkItemStatus::default()
            };
            let next = next_attempt(&status, &policy).unwrap();
            let waited = next.duration_since(start).as_secs();
            assert!(
                (seconds * 9 / 10..=seconds * 11 / 10).contains(&waited),
                "{failures}: {waited}"
            );
            assert_eq!(next_attempt(&status, &policy), Some(next));
        }
    }

    #[test]
    fn without_failure_or_policy_there_is_no_wait() {
        let policy: FailurePolicy = serde_json::from_value(json!({"backoff": {"initial": "1m", "max": "1h"}})).unwrap();
        assert_eq!(next_attempt(&WorkItemStatus::default(), &policy), None);
        let status = WorkItemStatus {
            consecutive_failures: 1,
            last_failure_time: Some(Time(Timestamp::UNIX_EPOCH)),
            ..WorkItemStatus::default()
        };
        assert_eq!(next_attempt(&status, &FailurePolicy::default()), None);
    }
}
