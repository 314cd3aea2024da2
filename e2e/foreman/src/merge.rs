//! The merge patch (RFC 7386) between two states of an object, which is what Foreman sends.

use serde_json::{Map, Value};

/// What to merge into `before` to get `after`; `None` if nothing: then nothing is written either.
pub(crate) fn between(before: &Value, after: &Value) -> Option<Value> {
    match (before, after) {
        _ if before == after => None,
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for (key, value) in new {
                let change = match old.get(key) {
                    None => Some(value.clone()),
                    Some(before) => between(before, value),
                };
                patch.extend(change.map(|change| (key.clone(), change)));
            }
            let gone = old.keys().filter(|key| !new.contains_key(*key));
            patch.extend(gone.map(|key| (key.clone(), Value::Null)));
            Some(Value::Object(patch))
        }
        _ => Some(after.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::between;
    use serde_json::json;

    #[test]
    fn only_what_changed_is_in_the_patch_and_lists_are_replaced() {
        let before = json!({"phase": "Failed", "tasks": [1], "left": {"a": 1, "b": 2}});
        assert_eq!(between(&before, &before), None);
        let after = json!({"phase": "Planned", "tasks": [1, 2], "left": {"a": 1}});
        let patch = json!({"phase": "Planned", "tasks": [1, 2], "left": {"b": null}});
        assert_eq!(between(&before, &after), Some(patch));
    }
}
