//! What a further policy may change about an enforced section: only make it stricter.
//!
//! | Field | The stricter one |
//! |---|---|
//! | a number that limits | the smaller; 0 is no limit where the field allows that |
//! | a wait: `resetAfter`, `backoff` | the longer; one that the further policy does not have changes nothing |
//! | `ignore` | what both ignore |
//! | anything else | the enforced one |

use std::collections::BTreeSet;

use taskgate_api::task_policy::{Backoff, FailurePolicy, RetryPolicy};

/// The failure section `enforced`, as far as `further` makes it stricter.
pub(crate) fn failure(enforced: &FailurePolicy, further: &FailurePolicy) -> FailurePolicy {
    let backoff = match (&enforced.backoff, &further.backoff) {
        (Some(one), Some(other)) => Some(slower(one, other)),
        (one, other) => one.clone().or_else(|| other.clone()),
    };
    let reset_after = match (&enforced.reset_after, &further.reset_after) {
        (Some(one), Some(other)) => Some(*one.max(other)),
        (one, _) => *one,
    };
    let ignore = match (&enforced.ignore, &further.ignore) {
        (Some(one), Some(other)) => {
            let other: BTreeSet<_> = other.iter().collect();
            Some(one.iter().copied().filter(|failure| other.contains(failure)).collect())
        }
        (one, other) => one.clone().or_else(|| other.clone()),
    };
    FailurePolicy {
        max_retries_per_item: limit(enforced.max_retries_per_item, further.max_retries_per_item),
        max_infrastructure_failures: limit(
            enforced.max_infrastructure_failures,
            further.max_infrastructure_failures,
        ),
        reset_after,
        backoff,
        ignore,
        ..enforced.clone()
    }
}

/// The retry section `enforced`, as far as `further` makes it stricter.
pub(crate) fn retry(enforced: &RetryPolicy, further: &RetryPolicy) -> RetryPolicy {
    let backoff = match &further.backoff {
        Some(further) => Some(slower(&enforced.backoff(), further)),
        None => enforced.backoff.clone(),
    };
    RetryPolicy {
        max_attempts: enforced.max_attempts.min(further.max_attempts),
        // 0 is the strictest here: such failures are never retried.
        max_infrastructure_failures: enforced
            .max_infrastructure_failures
            .min(further.max_infrastructure_failures),
        max_in_flight: enforced.max_in_flight.min(further.max_in_flight),
        max_in_flight_per_namespace: enforced
            .max_in_flight_per_namespace
            .min(further.max_in_flight_per_namespace),
        backoff,
        ..enforced.clone()
    }
}

/// The smaller of two limits, of which 0 is none.
fn limit(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, limit) | (limit, 0) => limit,
        (one, other) => one.min(other),
    }
}

fn slower(one: &Backoff, other: &Backoff) -> Backoff {
    Backoff {
        initial: one.initial.max(other.initial),
        factor: one.factor.max(other.factor),
        max: one.max.max(other.max),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn both(enforced: Value, further: Value) -> Value {
        let read = |spec| serde_json::from_value(spec).unwrap();
        json!(failure(&read(enforced), &read(further)))
    }

    #[test]
    fn each_field_goes_its_way() {
        let max = "maxRetriesPerItem";
        for (enforced, further, limit) in [(3, 5, 3), (3, 2, 2), (3, 0, 3), (0, 2, 2), (0, 0, 0)] {
            assert_eq!(
                both(json!({max: enforced}), json!({max: further}))[max],
                limit,
                "{enforced} {further}"
            );
        }
        let max = "maxInfrastructureFailures";
        for (enforced, further, limit) in [(3, 5, 3), (3, 0, 3), (0, 2, 2)] {
            assert_eq!(
                both(json!({max: enforced}), json!({max: further}))[max],
                limit,
                "{enforced} {further}"
            );
        }
        for (enforced, further, after) in [
            (json!("60s"), json!("120s"), json!("120s")),
            (json!("120s"), json!("60s"), json!("120s")),
            (json!("60s"), Value::Null, json!("60s")),
            (Value::Null, json!("60s"), Value::Null),
        ] {
            let found = both(json!({"resetAfter": enforced}), json!({"resetAfter": further}));
            assert_eq!(found["resetAfter"], after, "{enforced} {further}");
        }
        let backoff = |initial: &str, max: &str| json!({"backoff": {"initial": initial, "factor": 2, "max": max}});
        let found = both(backoff("60s", "600s"), backoff("120s", "300s"));
        assert_eq!(found["backoff"], backoff("120s", "600s")["backoff"]);
        assert_eq!(
            both(json!({}), backoff("120s", "300s"))["backoff"],
            backoff("120s", "300s")["backoff"]
        );
        let ignored = |ignore: Value| {
            both(json!({"ignore": ["Evicted", "NodeLost"]}), json!({"ignore": ignore}))["ignore"].clone()
        };
        assert_eq!(ignored(json!(["NodeLost", "ImagePull"])), json!(["NodeLost"]));
        assert_eq!(ignored(Value::Null), json!(["Evicted", "NodeLost"]));
        assert_eq!(both(json!({}), json!({"ignore": []}))["ignore"], json!([]));
        let found = both(
            json!({"itemKey": "a", "resetOnChange": false}),
            json!({"itemKey": "b", "resetOnChange": true}),
        );
        assert_eq!(
            (&found["itemKey"], &found["resetOnChange"]),
            (&json!("a"), &json!(false))
        );
    }

    #[test]
    fn retries_become_fewer_and_later() {
        let read = |spec: Value| serde_json::from_value::<RetryPolicy>(spec).unwrap();
        let found = retry(
            &read(
                json!({"maxAttempts": 3, "maxInfrastructureFailures": 2, "maxInFlight": 5, "overrides": {"task": {"model": "a"}}}),
            ),
            &read(json!({
                "maxAttempts": 9, "maxInfrastructureFailures": 0, "maxInFlight": 2, "overrides": {"task": {"model": "b"}},
                "backoff": {"initial": "1s", "factor": 3, "max": "1h"},
            })),
        );
        assert_eq!(
            (
                found.max_attempts,
                found.max_infrastructure_failures,
                found.max_in_flight
            ),
            (3, 0, 2)
        );
        assert_eq!(json!(found.overrides), json!({"task": {"model": "a"}}));
        assert_eq!(
            json!(found.backoff),
            json!({"initial": "5s", "factor": 3, "max": "3600s"})
        );
    }
}
