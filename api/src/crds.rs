//! The CustomResourceDefinitions of taskgate's own kinds, as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

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

pub(crate) fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
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
