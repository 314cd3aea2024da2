//! The CustomResourceDefinitions of taskgate's own kinds, as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::Schema;
use serde_json::{Map, Value, json};

use crate::{ClusterTaskPolicy, TaskPolicy, WorkItem, keys};

/// Every CustomResourceDefinition, in the order in which they are installed.
pub fn all() -> Vec<CustomResourceDefinition> {
    [TaskPolicy::crd(), ClusterTaskPolicy::crd(), WorkItem::crd()]
        .into_iter()
        .map(finish)
        .collect()
}

/// Corrects what the derives cannot express, and labels the definition as taskgate's.
///
/// `nullable` goes: the API server then prunes a null instead of storing it, so a null reads as "not given" to CEL's
/// `has()` as well. Unsigned formats go too: the API server knows none and would answer each write with a warning.
fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.metadata
        .labels
        .get_or_insert_default()
        .insert(keys::PART_OF.into(), keys::PART_OF_TASKGATE.into());
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut() else {
            continue;
        };
        let mut value = serde_json::to_value(&*schema).expect("a schema that was derived serialises");
        tidy(&mut value);
        *schema = serde_json::from_value(value).expect("tidying leaves a schema a schema");
    }
    crd
}

/// The begin of the text about the values of an enum, as in Kubernetes' own kinds.
const VALUES: &str = "Possible enum values:";

/// Moves the effect of each value of an enum from its variant to one text, as kube drops the documentation of variants.
///
/// The text travels as the title of the schema, because the documentation of a field replaces the description of its type, and
/// that of an optional field is replaced by it. [`tidy`] appends it to the description.
pub(crate) fn describe_values(schema: &mut Schema) {
    let Some(variants) = schema.remove("oneOf") else {
        return;
    };
    let variants = variants.as_array().into_iter().flatten();
    let (values, effects): (Vec<_>, Vec<_>) = variants
        .map(|variant| {
            let value = &variant["const"];
            let effect = variant["description"].as_str().unwrap_or_default().replace('\n', " ");
            (value.clone(), format!("\n - `{value}`: {effect}"))
        })
        .unzip();
    schema.remove("description");
    schema.insert("type".into(), json!("string"));
    schema.insert("enum".into(), json!(values));
    schema.insert("title".into(), json!(format!("{VALUES}{}", effects.concat())));
}

/// Appends `values`, the text of [`describe_values`], to the description of a schema.
fn append_values(fields: &mut Map<String, Value>, values: &str) {
    let description = match fields.get("description").and_then(Value::as_str) {
        Some(description) => format!("{description}\n\n{values}"),
        None => values.to_owned(),
    };
    fields.insert("description".into(), json!(description));
}

fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // schemars lists it for an optional enum.
            if let Some(Value::Array(values)) = fields.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            // `kubectl explain` shows the description of a list, not of its entries.
            let of_entries = fields.get("items").and_then(|items| items["title"].as_str());
            let values = fields.get("title").and_then(Value::as_str).or(of_entries);
            let values = values.filter(|title| title.starts_with(VALUES));
            if let Some(values) = values.map(str::to_owned) {
                append_values(fields, &values);
                fields.remove("title");
            }
            if fields.get("nullable") == Some(&json!(true)) {
                fields.remove("nullable");
            }
            match fields.get("format").and_then(Value::as_str) {
                Some("uint32") => fields.insert("format".into(), json!("int32")),
                Some("uint64") => fields.insert("format".into(), json!("int64")),
                _ => None,
            };
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_explained() {
        fn walk(path: &str, schema: &Value, missing: &mut Vec<String>) {
            for (name, child) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                // Kubernetes' own condition and selector types bring their texts; `metadata` is the API server's.
                if child.get("description").is_none() && path != ".metadata" {
                    missing.push(path.clone());
                }
                walk(&path, child, missing);
                walk(&format!("{path}[]"), &child["items"], missing);
            }
        }
        for crd in all() {
            let mut missing = Vec::new();
            let value = serde_json::to_value(&crd).unwrap();
            walk(
                "",
                &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
                &mut missing,
            );
            assert!(missing.is_empty(), "{:?}: {missing:?}", crd.metadata.name);
        }
    }

    #[test]
    fn every_value_of_an_enum_is_explained() {
        fn walk(path: &str, schema: &Value, seen: &mut usize) {
            let listed = schema["enum"].as_array().or(schema["items"]["enum"].as_array());
            for value in listed.into_iter().flatten() {
                let description = schema["description"].as_str().unwrap_or_default();
                assert!(
                    description.contains(&format!(" - `{value}`: ")),
                    "{path}: {description}"
                );
                assert!(!description.starts_with("Possible"), "{path} lacks its own description");
                *seen += 1;
            }
            for (name, child) in schema["properties"].as_object().into_iter().flatten() {
                walk(&format!("{path}.{name}"), child, seen);
                walk(&format!("{path}.{name}[]"), &child["items"]["properties"], seen);
            }
        }
        let mut seen = 0;
        for crd in all() {
            let value = serde_json::to_value(&crd).unwrap();
            walk(
                "",
                &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
                &mut seen,
            );
        }
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn no_schema_lets_null_through_or_names_an_unknown_format() {
        for crd in all() {
            let text = serde_json::to_string(&crd).unwrap();
            assert!(
                !text.contains("nullable") && !text.contains("uint"),
                "{:?}",
                crd.metadata.name
            );
        }
    }
}
