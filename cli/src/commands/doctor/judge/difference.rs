//! Where two objects differ, as paths. What is null or empty is the same as what is not there: the API server fills in either.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The paths of `wanted` at which `found` says something else. What `found` has besides is left alone.
pub(super) fn missing(wanted: &Value, found: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    walk(wanted, found, false, &mut String::new(), &mut paths);
    paths
}

/// The paths at which the two differ.
pub(super) fn between(wanted: &Value, found: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    walk(wanted, found, true, &mut String::new(), &mut paths);
    paths
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_nothing),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn walk(wanted: &Value, found: &Value, both_ways: bool, path: &mut String, paths: &mut Vec<String>) {
    if is_nothing(wanted) && (!both_ways || is_nothing(found)) {
        return;
    }
    let whole = path.len();
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            let besides = found.keys().filter(|key| both_ways && !wanted.contains_key(*key));
            for key in wanted.keys().chain(besides) {
                if whole > 0 {
                    path.push('.');
                }
                path.push_str(key);
                let of = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or_default();
                walk(&of(wanted), &of(found), both_ways, path, paths);
                path.truncate(whole);
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                // Writing into a String cannot fail.
                let _ = write!(path, "[{index}]");
                walk(wanted, found, both_ways, path, paths);
                path.truncate(whole);
            }
        }
        (Value::Number(wanted), Value::Number(found)) if wanted.as_f64() == found.as_f64() => {}
        (wanted, found) if wanted == found => {}
        // What holds nothing may be held by nothing.
        (wanted, Value::Null) if is_nothing(wanted) => {}
        _ => paths.push(path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_what_differs() {
        let wanted = json!({"a": {"b": [{"c": 1, "d": {}}], "e": null}, "f": []});
        let same = json!({"a": {"b": [{"c": 1.0}]}});
        assert_eq!(between(&wanted, &same), Vec::<String>::new());
        let more = json!({"a": {"b": [{"c": 1, "x": "y"}]}, "z": true});
        assert_eq!(missing(&wanted, &more), Vec::<String>::new());
        assert_eq!(between(&wanted, &more), ["a.b[0].x", "z"]);
        let other = json!({"a": {"b": [{"c": 2}]}});
        assert_eq!(missing(&wanted, &other), ["a.b[0].c"]);
        assert_eq!(missing(&wanted, &json!({"a": {"b": [1, 2]}})), ["a.b"]);
        assert_eq!(missing(&wanted, &json!({})), ["a"]);
    }
}
