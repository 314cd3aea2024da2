//! The paths at which two objects differ, for the comparison of what is installed with what this release generates.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The paths of `wanted` at which `found` differs. Fields that only `found` has do not count.
pub(super) fn missing(wanted: &Value, found: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    walk(wanted, found, false, &mut String::new(), &mut paths);
    paths
}

/// The paths at which two objects differ.
pub(super) fn differences(wanted: &Value, found: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    walk(wanted, found, true, &mut String::new(), &mut paths);
    paths
}

/// A null or empty value equals an absent one: the API server fills in either.
fn walk(wanted: &Value, found: &Value, both_ways: bool, path: &mut String, paths: &mut Vec<String>) {
    if is_empty(wanted) && (!both_ways || is_empty(found)) {
        return;
    }
    let length = path.len();
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            let extra = found.keys().filter(|key| both_ways && !wanted.contains_key(*key));
            for key in wanted.keys().chain(extra) {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(key);
                let field = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or_default();
                walk(&field(wanted), &field(found), both_ways, path, paths);
                path.truncate(length);
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                let _ = write!(path, "[{index}]");
                walk(wanted, found, both_ways, path, paths);
                path.truncate(length);
            }
        }
        (Value::Number(wanted), Value::Number(found)) if wanted.as_f64() == found.as_f64() => {}
        (wanted, found) if wanted == found => {}
        (wanted, Value::Null) if is_empty(wanted) => {}
        _ => paths.push(path.clone()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_the_differences() {
        let wanted = json!({"a": {"b": [{"c": 1, "d": {}}], "e": null}, "f": []});
        let same = json!({"a": {"b": [{"c": 1.0}]}});
        assert_eq!(differences(&wanted, &same), Vec::<String>::new());
        let more = json!({"a": {"b": [{"c": 1, "x": "y"}]}, "z": true});
        assert_eq!(missing(&wanted, &more), Vec::<String>::new());
        assert_eq!(differences(&wanted, &more), ["a.b[0].x", "z"]);
        let other = json!({"a": {"b": [{"c": 2}]}});
        assert_eq!(missing(&wanted, &other), ["a.b[0].c"]);
        assert_eq!(missing(&wanted, &json!({"a": {"b": [1, 2]}})), ["a.b"]);
        assert_eq!(missing(&wanted, &json!({})), ["a"]);
    }
}
