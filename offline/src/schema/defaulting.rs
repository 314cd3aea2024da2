//! Prunes unknown fields and fills in defaults, as the API server does before admission.

use serde_json::{Map, Value};

use super::{FieldError, join};

/// The fields of `metadata`, which schemas omit.
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

/// Prunes the unknown fields of a whole object. `apiVersion`, `kind` and `metadata` are always known.
pub(super) fn prune_object(schema: &Value, object: &mut Value, errors: &mut Vec<FieldError>) {
    let Some(fields) = object.as_object_mut() else { return };
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        retain(metadata, "metadata", errors, |field| METADATA.contains(&field));
    }
    let own: Vec<_> = ["apiVersion", "kind", "metadata"]
        .into_iter()
        .filter_map(|field| fields.remove_entry(field))
        .collect();
    prune("", schema, object, errors);
    if let Some(fields) = object.as_object_mut() {
        fields.extend(own);
    }
}

fn retain(fields: &mut Map<String, Value>, path: &str, errors: &mut Vec<FieldError>, known: impl Fn(&str) -> bool) {
    fields.retain(|field, _| {
        let known = known(field);
        if !known {
            let field = join(path, field);
            let message = format!("unknown field {field:?}");
            errors.push(FieldError::invalid(field, message));
        }
        known
    });
}

fn prune(path: &str, schema: &Value, value: &mut Value, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            let properties = schema["properties"].as_object();
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            let keeps = schema["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true)
                || schema.get("additionalProperties") == Some(&Value::Bool(true));
            let known = |field: &str| properties.is_some_and(|properties| properties.contains_key(field));
            if others.is_none() && !keeps {
                retain(fields, path, errors, known);
            }
            for (field, value) in fields {
                let below = properties.and_then(|properties| properties.get(field)).or(others);
                if let Some(below) = below {
                    prune(&join(path, field), below, value, errors);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(&format!("{path}[{index}]"), &schema["items"], item, errors);
            }
        }
        _ => {}
    }
}

/// Fills in the defaults, and drops nulls unless the field is nullable.
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
