//! What the API server does to an object before anybody sees it: fields that the schema does not know are dropped, and
//! defaults are filled in.

use serde_json::{Map, Value};

use super::{Flaw, join};

/// The fields of `metadata`, which schemas do not describe.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Drops what the schema of a whole object does not know. `apiVersion`, `kind` and `metadata` are always known.
pub(super) fn prune_object(schema: &Value, object: &mut Value, flaws: &mut Vec<Flaw>) {
    let Some(fields) = object.as_object_mut() else { return };
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        retain(metadata, "metadata", flaws, |field| METADATA.contains(&field));
    }
    let own: Vec<_> = ["apiVersion", "kind", "metadata"]
        .into_iter()
        .filter_map(|field| fields.remove_entry(field))
        .collect();
    prune("", schema, object, flaws);
    if let Some(fields) = object.as_object_mut() {
        fields.extend(own);
    }
}

fn retain(fields: &mut Map<String, Value>, path: &str, flaws: &mut Vec<Flaw>, known: impl Fn(&str) -> bool) {
    fields.retain(|field, _| {
        let known = known(field);
        if !known {
            let field = join(path, field);
            let message = format!("unknown field {field:?}");
            flaws.push(Flaw::invalid(field, message));
        }
        known
    });
}

fn prune(path: &str, schema: &Value, value: &mut Value, flaws: &mut Vec<Flaw>) {
    match value {
        Value::Object(fields) => {
            let properties = schema["properties"].as_object();
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            let keeps = schema["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true)
                || schema.get("additionalProperties") == Some(&Value::Bool(true));
            let known = |field: &str| properties.is_some_and(|properties| properties.contains_key(field));
            if others.is_none() && !keeps {
                retain(fields, path, flaws, known);
            }
            for (field, value) in fields {
                let below = properties.and_then(|properties| properties.get(field)).or(others);
                if let Some(below) = below {
                    prune(&join(path, field), below, value, flaws);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(&format!("{path}[{index}]"), &schema["items"], item, flaws);
            }
        }
        _ => {}
    }
}

/// Fills in the defaults, and drops nulls where a default takes their place or nothing says that null is a value.
pub(super) fn fill_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let properties = schema["properties"].as_object();
            for (field, below) in properties.into_iter().flatten() {
                let default = below.get("default");
                if fields.get(field).is_some_and(Value::is_null) && below["nullable"] != Value::Bool(true) {
                    fields.remove(field);
                }
                if let (Some(default), None) = (default, fields.get(field)) {
                    fields.insert(field.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(field) {
                    fill_defaults(below, value);
                }
            }
            if let Some(others) = schema.get("additionalProperties").filter(|others| others.is_object()) {
                let named = |field: &str| properties.is_some_and(|properties| properties.contains_key(field));
                for (_, value) in fields.iter_mut().filter(|(field, _)| !named(field)) {
                    fill_defaults(others, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill_defaults(&schema["items"], item)),
        _ => {}
    }
}
