//! The differences between two objects, path by path, as text.
//!
//! Imports nothing of this crate. Called by `evaluator` and `case`.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};

type JsonFields = Map<String, Value>;

/// One value that was added, removed or replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// The path, such as `metadata.labels[team]`.
    pub path: String,
    /// The value before.
    pub before: Option<Value>,
    /// The value after.
    pub after: Option<Value>,
}

/// The differences, in the order of their paths. An added or removed map is listed key by key.
pub fn changes(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut found = Vec::new();
    walk("", Some(before), Some(after), &mut found);
    found
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<FieldChange>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => walk_fields(path, Some(a), Some(b), found),
        (None, Some(Value::Object(fields))) if !fields.is_empty() => walk_fields(path, None, Some(fields), found),
        (Some(Value::Object(fields)), None) if !fields.is_empty() => walk_fields(path, Some(fields), None, found),
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                walk(&format!("{path}[{index}]"), a.get(index), b.get(index), found);
            }
        }
        (before, after) => found.push(FieldChange {
            path: path.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

fn walk_fields(path: &str, before: Option<&JsonFields>, after: Option<&JsonFields>, found: &mut Vec<FieldChange>) {
    let keys = [before, after].into_iter().flatten().flat_map(Map::keys);
    let keys: BTreeSet<_> = keys.collect();
    for key in keys {
        let before = before.and_then(|fields| fields.get(key));
        let after = after.and_then(|fields| fields.get(key));
        walk(&join(path, key), before, after, found);
    }
}

fn join(path: &str, key: &str) -> String {
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match (path, plain) {
        ("", true) => key.to_owned(),
        (_, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key}]"),
    }
}

impl fmt::Display for FieldChange {
    /// `+ path: value`, `- path: value`, `~ path: before -> after`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, before, after } = self;
        match (before, after) {
            (None, Some(after)) => write!(f, "+ {path}: {after}"),
            (Some(before), None) => write!(f, "- {path}: {before}"),
            (Some(before), Some(after)) => write!(f, "~ {path}: {before} -> {after}"),
            (None, None) => write!(f, "  {path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn added_removed_and_replaced_values_are_listed() {
        let before = json!({"spec": {"ttl": 5, "suspend": false, "list": [1, 2]}});
        let after = json!({"spec": {"suspend": true, "list": [1, 3, 4]}, "metadata": {"labels": {"a.b/c": "d"}}});
        let lines: Vec<_> = changes(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                r#"+ metadata.labels[a.b/c]: "d""#,
                "~ spec.list[1]: 2 -> 3",
                "+ spec.list[2]: 4",
                "~ spec.suspend: false -> true",
                "- spec.ttl: 5",
            ]
        );
        assert!(changes(&after, &after).is_empty());
    }
}
