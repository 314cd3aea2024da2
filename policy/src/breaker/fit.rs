//! Fits a `WorkItem`'s status to its schema: values of Kelos, agents and issue sources have any size, and one field that is too
//! long would make every later write invalid. The limits are read from the CRD itself.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};
use taskgate_api::{Lenient as _, WorkItemStatus, crds, work_item::Attempt};

use crate::kubernetes::clip;

/// The schema of the status.
static STATUS: LazyLock<Value> = LazyLock::new(|| {
    let crd = crds::all().into_iter().find(|crd| crd.spec.names.kind == "WorkItem");
    let version = crd.and_then(|crd| crd.spec.versions.into_iter().next());
    let schema = version.and_then(|version| version.schema?.open_api_v3_schema);
    let schema = serde_json::to_value(schema).unwrap_or_default();
    schema.pointer("/properties/status").cloned().unwrap_or_default()
});

/// `status` with everything cut, saturated or left out that its schema would refuse.
pub fn fit(status: &WorkItemStatus) -> WorkItemStatus {
    let written = serde_json::to_value(status).ok();
    let fitted = written.and_then(|mut value| fits(&mut value, &STATUS).then_some(value));
    let fitted = fitted.and_then(|value| serde_json::from_value(value).ok());
    fitted.unwrap_or_else(|| minimal(status))
}

/// What has to be kept of `status` at least: the counts, and which ends are recorded. For when the API server takes no more.
pub fn minimal(status: &WorkItemStatus) -> WorkItemStatus {
    let attempts = status.attempts.iter().map(|attempt| Attempt {
        uid: clip(&attempt.uid, 128),
        name: clip(&attempt.name, 253),
        outcome: attempt.outcome,
        opened: attempt.opened,
        reason: None,
        cancelled_by: None,
        start_time: None,
        completion_time: attempt.completion_time.clone(),
        cost_usd: None,
        input_tokens: None,
        output_tokens: None,
    });
    let most = i32::MAX.unsigned_abs();
    WorkItemStatus {
        breaker: status.breaker,
        consecutive_failures: status.consecutive_failures.min(most),
        infrastructure_failures: status.infrastructure_failures.min(most),
        last_failure_time: status.last_failure_time.clone(),
        opened_at: status.opened_at.clone(),
        attempts: attempts.collect(),
        ..WorkItemStatus::default()
    }
}

/// Makes `value` fit `schema`; false for what cannot be made to.
fn fits(value: &mut Value, schema: &Value) -> bool {
    let limit = |name: &str| usize::try_from(schema.get(name)?.as_u64()?).ok();
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        return false;
    }
    // Other values have types of ours; this one is untyped JSON.
    if schema.text("/type") == Some("object") && !value.is_object() {
        return false;
    }
    match value {
        Value::String(text) => {
            if let Some(max) = limit("maxLength").filter(|max| text.chars().count() > *max) {
                *text = clip(text, max);
            }
            let long_enough = limit("minLength").is_none_or(|min| text.chars().count() >= min);
            long_enough && (schema.text("/format") != Some("date-time") || is_time(text))
        }
        Value::Number(number) => {
            let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
            let (low, high) = match schema.text("/format") {
                Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
                _ => (i64::MIN, i64::MAX),
            };
            let exact = number.as_i64().unwrap_or(if number.is_u64() { i64::MAX } else { low });
            #[allow(
                clippy::cast_possible_truncation,
                reason = "bounds of our own schema are small integers"
            )]
            let within = |name: &str, otherwise: i64| bound(name).map_or(otherwise, |bound| bound as i64);
            *value = exact
                .clamp(within("minimum", low).max(low), within("maximum", high).min(high))
                .into();
            true
        }
        Value::Array(items) => {
            let item = schema.get("items").cloned().unwrap_or_default();
            items.retain_mut(|value| fits(value, &item));
            unique(items, schema);
            // The latest come last.
            let surplus = limit("maxItems").map_or(0, |max| items.len().saturating_sub(max));
            items.drain(..surplus);
            true
        }
        Value::Object(fields) => fits_fields(fields, schema),
        Value::Null | Value::Bool(_) => true,
    }
}

fn fits_fields(fields: &mut Map<String, Value>, schema: &Value) -> bool {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return true;
    };
    fields.retain(|name, value| properties.get(name).is_none_or(|schema| fits(value, schema)));
    let mut required = schema.items("/required").filter_map(Value::as_str);
    required.all(|name| fields.contains_key(name))
}

/// Removes entries of a list with keys whose key a later entry has.
fn unique(items: &mut Vec<Value>, schema: &Value) {
    let keys: Vec<_> = schema.items("/x-kubernetes-list-map-keys").collect();
    if keys.is_empty() {
        return;
    }
    let value = |item: &Value, key: &Value| item.get(key.as_str()?).cloned();
    let key = |item: &Value| keys.iter().map(|key| value(item, key)).collect::<Vec<_>>();
    let all: Vec<_> = items.iter().map(key).collect();
    let mut next = 0;
    items.retain(|_| {
        next += 1;
        !all[next..].contains(&all[next - 1])
    });
}

/// Whether the API server takes `text` for a time: RFC 3339, which has no years before 0 and none after 9999.
fn is_time(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<Timestamp>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fitted(status: &Value) -> Value {
        let status: WorkItemStatus = serde_json::from_value(status.clone()).unwrap();
        serde_json::to_value(fit(&status)).unwrap()
    }

    #[test]
    fn the_schema_is_found() {
        assert!(STATUS.pointer("/properties/attempts/items/properties/uid").is_some());
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let status = json!({"consecutiveFailures": 2, "breaker": "Open", "totalCostUSD": "1.50", "openedAt": "2026-11-21T12:00:00Z",
            "attempts": [{"uid": "u", "name": "t", "outcome": "Failed", "inputTokens": 7}],
            "retry": {"attempt": 2, "run": {"kind": "Task", "name": "t", "uid": "u"}, "aside": ["a"]}});
        assert_eq!(fitted(&status), status);
    }

    #[test]
    fn what_does_not_fit_is_cut_saturated_or_left_out() {
        let long = "x".repeat(100_000);
        let condition = |reason: &str| {
            json!({"type": "Retry", "status": "True", "reason": reason, "message": "",
            "lastTransitionTime": "2026-11-21T12:00:00Z"})
        };
        let attempts: Vec<_> = (0..500)
            .map(|n| json!({"uid": format!("u{n}"), "name": "t", "outcome": "Failed", "cancelledBy": long}))
            .collect();
        let found = fitted(&json!({
            "consecutiveFailures": u32::MAX, "reason": long, "totalCostUSD": "9".repeat(60),
            "openedAt": "-000009-01-01T00:00:00Z", "attempts": attempts,
            "conditions": [condition("Old"), condition("New")],
            "retry": {"attempt": u32::MAX, "run": {"kind": "Task", "name": "", "uid": "u"},
                "aside": (0..1000).map(|n| n.to_string()).collect::<Vec<_>>(),
                "transition": {"old": {"kind": "Task", "name": "t", "uid": "u"}, "from": 1, "to": 2, "step": "Deleted",
                    "since": "2026-11-21T12:00:00Z", "predecessor": 7}},
        }));
        let length = |pointer: &str| found.pointer(pointer).and_then(Value::as_str).unwrap().chars().count();
        assert_eq!((length("/reason"), length("/totalCostUSD")), (128, 32));
        assert_eq!(found["consecutiveFailures"], i32::MAX);
        assert_eq!(found.get("openedAt"), None);
        let attempts = found["attempts"].as_array().unwrap();
        assert_eq!((attempts.len(), &attempts[99]["uid"]), (100, &json!("u499")));
        assert_eq!(length("/attempts/0/cancelledBy"), 256);
        assert_eq!(found["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(found["conditions"][0]["reason"], "New");
        assert_eq!(found["retry"]["attempt"], i32::MAX);
        assert_eq!(found["retry"].get("run"), None, "a run without a name is none");
        assert_eq!(found["retry"]["aside"].as_array().unwrap().len(), 100);
        assert_eq!(
            found["retry"]["transition"].get("predecessor"),
            None,
            "a number is no object"
        );
    }

    proptest! {
        #[test]
        fn fitting_twice_is_fitting_once(
            reason in "\\PC{0,300}", failures in any::<u32>(), tokens in any::<Option<i64>>(), uids in proptest::collection::vec("\\PC{0,200}", 0..150),
        ) {
            let attempts: Vec<_> = uids
                .iter()
                .map(|uid| json!({"uid": uid, "name": "", "outcome": "Failed", "reason": reason, "inputTokens": tokens}))
                .collect();
            let once = fitted(&json!({"consecutiveFailures": failures, "reason": reason, "attempts": attempts}));
            prop_assert_eq!(fitted(&once), once);
        }
    }
}
