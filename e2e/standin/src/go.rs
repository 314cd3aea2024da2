//! What Go's typed structs do to an object on its way through Kelos (kelos S28, §6.9).
//!
//! Kelos reads an object into structs and writes the structs back. On the way fields that the
//! structs lack vanish, empty strings, lists and maps vanish (`omitempty`), quantities become
//! canonical, and a struct that is no pointer appears (`resources: {}` of a container). The types of
//! this crate reproduce it: their own fields by serde attributes, the embedded core types by the
//! functions below, which [`types`](crate::types) names in `deserialize_with`.

use crate::quantity;
use k8s_openapi::api::core::v1::Container;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// Fields whose Go type is a map: an empty one is left out. An empty object elsewhere is a pointer
/// to an empty struct and stays (`emptyDir: {}`).
const MAPS: [&str; 7] = [
    "annotations",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "requests",
    "volumeAttributes",
];
/// Fields whose Go type is a plain `bool`: `false` is left out.
const FLAGS: [&str; 4] = ["readOnly", "stdin", "stdinOnce", "tty"];
/// Fields that hold a quantity.
const QUANTITIES: [&str; 2] = ["divisor", "sizeLimit"];

/// Reads an embedded core type the way Go would.
///
/// # Errors
/// Those of the target type.
pub(crate) fn embedded<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let mut value = Value::deserialize(deserializer)?;
    normalise(&mut value);
    serde_json::from_value(value).map_err(D::Error::custom)
}

/// Reads containers: as [`embedded`], and each has `resources`.
///
/// # Errors
/// Those of the target type.
pub(crate) fn containers<'de, D>(deserializer: D) -> Result<Vec<Container>, D::Error>
where
    D: Deserializer<'de>,
{
    let mut value = Value::deserialize(deserializer)?;
    normalise(&mut value);
    for container in value.as_array_mut().into_iter().flatten() {
        if let Value::Object(container) = container {
            container.entry("resources").or_insert_with(|| json!({}));
        }
    }
    serde_json::from_value(value).map_err(D::Error::custom)
}

/// Reads one quantity, a string or a number, in canonical form.
///
/// # Errors
/// When the text is no quantity.
pub(crate) fn quantity<'de, D>(deserializer: D) -> Result<Option<String>, D::Error>
where
    D: Deserializer<'de>,
{
    let value = Option::<Value>::deserialize(deserializer)?;
    value
        .map(|value| canonical(&value).ok_or_else(|| D::Error::custom(format!("no quantity: {value}"))))
        .transpose()
}

fn canonical(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => quantity::canonical(text),
        Value::Number(number) => quantity::canonical(&number.to_string()),
        _ => None,
    }
}

/// Drops what `omitempty` drops and rewrites quantities, at every depth.
pub(crate) fn normalise(value: &mut Value) {
    match value {
        Value::Object(object) => normalise_object(object),
        Value::Array(items) => items.iter_mut().for_each(normalise),
        _ => {}
    }
}

fn normalise_object(object: &mut Map<String, Value>) {
    for (key, value) in object.iter_mut() {
        normalise(value);
        if QUANTITIES.contains(&key.as_str()) {
            rewrite(value);
        } else if matches!(key.as_str(), "requests" | "limits")
            && let Value::Object(resources) = value
        {
            resources.values_mut().for_each(rewrite);
        }
    }
    if let Some(Value::Object(reference)) = object.get_mut("resourceFieldRef") {
        reference.entry("divisor").or_insert_with(|| json!("0"));
    }
    object.retain(|key, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty() || !MAPS.contains(&key.as_str()),
        Value::Bool(flag) => *flag || !FLAGS.contains(&key.as_str()),
        Value::Number(_) => true,
    });
}

fn rewrite(value: &mut Value) {
    if let Some(text) = canonical(value) {
        *value = Value::String(text);
    }
}

#[cfg(test)]
mod tests {
    use crate::types::TaskSpec;
    use serde_json::{Value, json};

    fn round_trip(spec: &Value) -> Value {
        let typed: TaskSpec = serde_json::from_value(spec.clone()).expect("spec is well formed");
        serde_json::to_value(typed).expect("typed spec serialises")
    }

    #[test]
    fn canonical_specs_survive_the_round_trip() {
        let spec = json!({
            "prompt": "", "type": "codex", "credentials": {"type": "none"}, "ttlSecondsAfterFinished": 0,
            "podOverrides": {
                "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                "env": [{"name": "A"}, {"name": "B", "value": "x"}],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
                "extraContainers": [{"name": "db", "image": "db", "resources": {}}],
            },
        });
        assert_eq!(round_trip(&spec), spec);
    }

    #[test]
    fn what_go_rewrites_does_not_survive() {
        let base = json!({"prompt": "p", "type": "codex", "credentials": {"type": "none"}});
        let with = |key: &str, value: Value| {
            let mut spec = base.clone();
            spec[key] = value;
            spec
        };
        let cpu = |cpu: Value| with("podOverrides", json!({"resources": {"limits": {"cpu": cpu}}}));
        assert_eq!(round_trip(&cpu(json!("0.5"))), cpu(json!("500m")));
        assert_eq!(round_trip(&cpu(json!(1))), cpu(json!("1")));
        assert_eq!(round_trip(&with("model", json!(""))), base);
        assert_eq!(round_trip(&with("dependsOn", json!([]))), base);
        assert_eq!(round_trip(&with("priority", json!(3))), base);
        assert_eq!(
            round_trip(&with("podOverrides", json!({"extraContainers": [{"name": "db"}]}))),
            with(
                "podOverrides",
                json!({"extraContainers": [{"name": "db", "resources": {}}]})
            ),
        );
        assert_eq!(
            round_trip(&with("podOverrides", json!({"env": [{"name": "A", "value": ""}]}))),
            with("podOverrides", json!({"env": [{"name": "A"}]})),
        );
    }
}
