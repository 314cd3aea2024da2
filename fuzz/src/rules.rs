//! What every answer must meet, whatever came in.

use serde_json::{Value, json};
use taskgate_api::{WorkItemSpec, WorkItemStatus};
use taskgate_offline::Schemas;
use taskgate_policy::ItemIdentity;
use taskgate_webhook::ObjectKind;

thread_local! {
    static SCHEMAS: Schemas = Schemas::own();
}

/// Why the API server would refuse a WorkItem with this status; empty when it would not.
pub fn flaws_of_status(status: &WorkItemStatus) -> Vec<String> {
    flaws(&json!({"key": "fixer/42", "item": "42"}), &json!(status))
}

/// Panics when the WorkItem of `item` would be refused, or its name is no label value.
pub fn assert_admissible(item: &ItemIdentity) {
    let name = item.work_item_name();
    assert!(is_label_value(&name) && !name.is_empty(), "{name:?} of {item:?}");
    let spec = WorkItemSpec {
        key: item.key.clone(),
        item: item.item.clone(),
        spawner: item.spawner.clone(),
    };
    let flaws = flaws(&json!(spec), &json!({}));
    assert!(flaws.is_empty(), "{flaws:?} of {item:?}");
}

fn flaws(spec: &Value, status: &Value) -> Vec<String> {
    let kind = ObjectKind {
        group: taskgate_api::GROUP.to_owned(),
        version: taskgate_api::VERSION.to_owned(),
        kind: "WorkItem".to_owned(),
    };
    let object = json!({
        "apiVersion": format!("{}/{}", kind.group, kind.version), "kind": kind.kind,
        "metadata": {"name": "item", "namespace": "team"}, "spec": spec, "status": status,
    });
    let flaws = SCHEMAS.with(|schemas| schemas.check(&kind, &object, &Value::Null));
    flaws
        .iter()
        .map(|flaw| format!("{}: {}", flaw.field, flaw.message))
        .collect()
}

/// Whether `object` has what the API server gives and demands of every object that it stores.
pub fn is_stored(object: &Value) -> bool {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (1..=253).contains(&text("/metadata/name").len())
        && (1..=128).contains(&text("/metadata/uid").len())
        && is_sent(object)
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
