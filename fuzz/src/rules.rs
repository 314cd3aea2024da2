//! Rules for every result, for any input.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use taskgate_api::{WorkItemSpec, WorkItemStatus};
use taskgate_offline::Schemas;
use taskgate_policy::ItemIdentity;
use taskgate_webhook::ObjectKind;

thread_local! {
    static SCHEMAS: Schemas = Schemas::own();
}

/// The API server's errors for a WorkItem with this status.
pub fn status_errors(status: &WorkItemStatus) -> Vec<String> {
    let mut errors = field_errors(&json!({"key": "fixer/42", "item": "42"}), &json!(status));
    let types: BTreeSet<_> = status.conditions.iter().map(|condition| &condition.type_).collect();
    if types.len() < status.conditions.len() {
        errors.push("status.conditions: Duplicate value".to_owned());
    }
    errors
}

/// Panics when the WorkItem of `item` is invalid, or its name is no label value.
pub fn assert_admissible(item: &ItemIdentity) {
    let name = item.work_item_name();
    assert!(is_label_value(&name) && !name.is_empty(), "{name:?} of {item:?}");
    let spec = WorkItemSpec {
        key: item.key.clone(),
        item: item.item.clone(),
        spawner: item.spawner.clone(),
    };
    let errors = field_errors(&json!(spec), &json!({}));
    assert!(errors.is_empty(), "{errors:?} of {item:?}");
}

fn field_errors(spec: &Value, status: &Value) -> Vec<String> {
    let kind = ObjectKind {
        group: taskgate_api::GROUP.to_owned(),
        version: taskgate_api::VERSION.to_owned(),
        kind: "WorkItem".to_owned(),
    };
    let object = json!({
        "apiVersion": format!("{}/{}", kind.group, kind.version), "kind": kind.kind,
        "metadata": {"name": "item", "namespace": "team"}, "spec": spec, "status": status,
    });
    let errors = SCHEMAS.with(|schemas| schemas.validate(&kind, &object, &Value::Null));
    errors
        .iter()
        .map(|error| format!("{}: {}", error.field, error.message))
        .collect()
}

/// Whether `object` could be stored by the API server.
pub fn is_stored(object: &Value) -> bool {
    let name = |field: &str, max: usize| {
        let text = object.pointer(field).and_then(Value::as_str).unwrap_or_default();
        (1..=max).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-.".contains(&c))
    };
    name("/metadata/name", 253) && name("/metadata/uid", 128) && is_sent(object)
}

/// Whether the API server would send `object` to a webhook: metadata and spec are there, and labels are legal.
pub fn is_sent(object: &Value) -> bool {
    let map = |pointer: &str| object.pointer(pointer).is_some_and(Value::is_object);
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let mut labels = labels.into_iter().flatten();
    map("/metadata") && map("/spec") && labels.all(|(_, value)| value.as_str().is_some_and(is_label_value))
}

/// Whether Kubernetes takes `value` as the value of a label.
pub fn is_label_value(value: &str) -> bool {
    let edge = |c: Option<u8>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && edge(value.bytes().next())
        && edge(value.bytes().last())
        && value.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

/// Panics when a label that `new` has and `old` has not is none, or an annotation is longer than `max` bytes.
pub fn assert_legal_metadata(old: &Value, new: &Value, max: usize) {
    for base in ["/metadata", "/spec/template/metadata"] {
        let added = |map: &str| {
            let entries = |object: &Value| {
                object
                    .pointer(&format!("{base}/{map}"))
                    .and_then(Value::as_object)
                    .cloned()
            };
            let old = entries(old).unwrap_or_default();
            let new = entries(new).unwrap_or_default().into_iter();
            new.filter(|(key, value)| old.get(key) != Some(value))
                .collect::<Vec<_>>()
        };
        for (key, value) in added("labels") {
            let legal = value.as_str().is_some_and(is_label_value);
            assert!(legal, "label {key:?}: {value}");
        }
        for (key, value) in added("annotations") {
            let fits = value.as_str().is_some_and(|text| text.len() <= max);
            assert!(fits, "annotation {key:?}: {value}");
        }
    }
}
