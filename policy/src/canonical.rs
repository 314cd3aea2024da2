//! Specs that Kelos cannot write back. Kelos adds its finalizer by sending the whole Task through its Go types; where
//! that changes the spec, the immutability rule refuses the write, for ever and without a word (kelos §6.9, S28).
//!
//! This is a list of what Go's types are known to change, not a model of them: it claims nothing about the rest.

use serde_json::{Map, Value};

/// Strings that Go writes although they are empty.
const KEPT_WHEN_EMPTY: [&str; 8] = [
    "prompt",
    "name",
    "key",
    "mountPath",
    "operator",
    "topologyKey",
    "devicePath",
    "path",
];
/// Lists that Go writes although they are empty.
const KEPT_LISTS: [&str; 4] = ["nodeSelectorTerms", "rules", "values", "options"];
/// Maps of strings: their values are data, and Go drops the map itself when it is empty.
const STRING_MAPS: [&str; 4] = ["labels", "annotations", "nodeSelector", "matchLabels"];
/// Maps whose values are quantities.
const QUANTITY_MAPS: [&str; 2] = ["limits", "requests"];
/// Single quantities.
const QUANTITIES: [&str; 2] = ["sizeLimit", "divisor"];
/// Booleans that Go drops when they are false.
const DROPPED_WHEN_FALSE: [&str; 4] = ["readOnly", "stdin", "stdinOnce", "tty"];
/// Numbers that Go drops when they are 0.
const DROPPED_WHEN_ZERO: [&str; 6] = [
    "hostPort",
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
];
/// Lists of containers, each of which Go writes with `resources`.
const CONTAINERS: [&str; 2] = ["extraContainers", "extraInitContainers"];

/// The fields of `spec`, as paths such as `podOverrides.resources.limits.cpu`, that Kelos would write back changed.
pub(crate) fn unstable_fields(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Value::Object(fields) = spec {
        walk_object("", fields, &mut found);
    }
    found
}

fn walk_object(path: &str, fields: &Map<String, Value>, found: &mut Vec<String>) {
    for (key, value) in fields {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        walk(&path, key, value, found);
    }
}

fn walk(path: &str, key: &str, value: &Value, found: &mut Vec<String>) {
    let unstable = match value {
        Value::String(text) if QUANTITIES.contains(&key) => is_unstable_quantity(text),
        Value::String(text) => text.is_empty() && !KEPT_WHEN_EMPTY.contains(&key),
        Value::Array(items) => items.is_empty() && !KEPT_LISTS.contains(&key),
        Value::Object(fields) if STRING_MAPS.contains(&key) => fields.is_empty(),
        Value::Object(fields) if QUANTITY_MAPS.contains(&key) => {
            for (name, quantity) in fields {
                if !is_stable_quantity(quantity) {
                    found.push(format!("{path}.{name}"));
                }
            }
            fields.is_empty()
        }
        Value::Bool(false) => DROPPED_WHEN_FALSE.contains(&key),
        Value::Number(number) => {
            QUANTITIES.contains(&key) || (number.as_i64() == Some(0) && DROPPED_WHEN_ZERO.contains(&key))
        }
        // The API server drops a null before anybody sees it.
        Value::Null | Value::Bool(true) | Value::Object(_) => false,
    };
    if unstable {
        found.push(path.to_owned());
    }
    match value {
        Value::Object(fields) if !STRING_MAPS.contains(&key) && !QUANTITY_MAPS.contains(&key) => {
            if key == "resourceFieldRef" && !fields.contains_key("divisor") {
                found.push(format!("{path}.divisor"));
            }
            walk_object(path, fields, found);
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if let Value::Object(fields) = item {
                    if CONTAINERS.contains(&key) && !fields.get("resources").is_some_and(Value::is_object) {
                        found.push(format!("{path}.resources"));
                    }
                    walk_object(&path, fields, found);
                }
            }
        }
        _ => {}
    }
}

/// A quantity written as a number comes back as a string.
fn is_stable_quantity(value: &Value) -> bool {
    match value {
        Value::String(text) => !is_unstable_quantity(text),
        Value::Null => true,
        _ => false,
    }
}

fn is_unstable_quantity(text: &str) -> bool {
    crate::canonical_quantity(text).is_some_and(|canonical| canonical != text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_seen_to_block_a_task_is_found() {
        for (spec, expected) in [
            (
                json!({"podOverrides": {"resources": {"limits": {"cpu": "0.5"}}}}),
                "podOverrides.resources.limits.cpu",
            ),
            (
                json!({"worker": {"podOverrides": {"resources": {"requests": {"cpu": 1}}}}}),
                "worker.podOverrides.resources.requests.cpu",
            ),
            (json!({"model": ""}), "model"),
            (json!({"dependsOn": []}), "dependsOn"),
            (
                json!({"podOverrides": {"extraContainers": [{"name": "a"}]}}),
                "podOverrides.extraContainers[0].resources",
            ),
            (
                json!({"podOverrides": {"env": [{"name": "A", "value": ""}]}}),
                "podOverrides.env[0].value",
            ),
            (json!({"podOverrides": {"labels": {}}}), "podOverrides.labels"),
            (
                json!({"podOverrides": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}]}}),
                "podOverrides.volumes[0].emptyDir.sizeLimit",
            ),
            (
                json!({"podOverrides": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": 5}}]}}),
                "podOverrides.volumes[0].emptyDir.sizeLimit",
            ),
            (
                json!({"podOverrides": {"volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": false}]}}),
                "podOverrides.volumeMounts[0].readOnly",
            ),
            (
                json!({"podOverrides": {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}}),
                "podOverrides.env[0].valueFrom.resourceFieldRef.divisor",
            ),
        ] {
            assert_eq!(unstable_fields(&spec), [expected], "{spec}");
        }
    }

    #[test]
    fn what_survives_the_round_trip_is_left_alone() {
        for spec in [
            json!(null),
            json!("text"),
            json!({"prompt": "", "ttlSecondsAfterFinished": 0, "model": null}),
            json!({"podOverrides": {"resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}, "labels": {"a": ""}}}),
            json!({"podOverrides": {"extraContainers": [{"name": "a", "resources": {}}], "podSecurityContext": {}}}),
            json!({"podOverrides": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        ] {
            assert_eq!(unstable_fields(&spec), [""; 0], "{spec}");
        }
    }
}
