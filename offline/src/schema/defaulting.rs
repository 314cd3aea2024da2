//! Prunes unknown fields and fills in defaults, as the API server does before admission.

use serde_json::{Map, Value};

use super::{FieldError, join, schema_of};

/// Prunes the unknown fields of a whole object, which it adds to `errors`, and fills in defaults. `apiVersion`, `kind` and `metadata`
/// are no part of schemas.
pub(super) fn prune_and_default(schema: &Value, object: &mut Value, errors: &mut Vec<FieldError>) {
    let Some(fields) = object.as_object_mut() else { return };
    let own: Vec<_> = ["apiVersion", "kind", "metadata"]
        .into_iter()
        .filter_map(|field| fields.remove_entry(field))
        .collect();
    prune_and_default_value("", schema, object, errors);
    if let Some(fields) = object.as_object_mut() {
        fields.extend(own);
    }
}

fn prune(fields: &mut Map<String, Value>, path: &str, errors: &mut Vec<FieldError>, known: impl Fn(&str) -> bool) {
    fields.retain(|field, _| {
        let known = known(field);
        if !known {
            let field = join(path, field);
            let message = format!("unknown field {field:?}");
            errors.push(FieldError { field, message });
        }
        known
    });
}

/// Prunes unknown fields, fills in defaults, and drops nulls unless the field is nullable.
fn prune_and_default_value(path: &str, schema: &Value, value: &mut Value, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            let keeps =
                schema["x-kubernetes-preserve-unknown-fields"] == true || schema["additionalProperties"] == true;
            if !keeps {
                prune(fields, path, errors, |field| schema_of(schema, field).is_some());
            }
            fields.retain(|field, value| {
                let nullable = |below: &Value| below["nullable"] == true;
                !value.is_null() || schema_of(schema, field).is_none_or(nullable)
            });
            for (field, below) in schema["properties"].as_object().into_iter().flatten() {
                if let (Some(default), None) = (below.get("default"), fields.get(field)) {
                    fields.insert(field.clone(), default.clone());
                }
            }
            for (field, value) in fields {
                if let Some(below) = schema_of(schema, field) {
                    prune_and_default_value(&join(path, field), below, value, errors);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune_and_default_value(&format!("{path}[{index}]"), &schema["items"], item, errors);
            }
        }
        _ => {}
    }
}
