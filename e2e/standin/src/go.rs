//! What Go's typed structs do to an object on its way through Kelos (kelos S28, §6.9).
//!
//! Kelos reads an object into structs and writes the structs back. On the way fields that the
//! structs lack vanish, empty strings, lists and maps vanish (`omitempty`) unless they are behind a
//! pointer, quantities become canonical, and a struct that is no pointer appears (`resources: {}` of
//! a container). A required field that vanishes here comes back with the typed struct. The types of
//! this crate reproduce it: their own fields by serde attributes, the embedded core types by the
//! functions below, which [`types`](crate::types) names in `deserialize_with`.

use crate::quantity;
use k8s_openapi::api::core::v1::Container;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// Fields whose Go type is a map: an empty one is left out. An empty object elsewhere is a pointer
/// to an empty struct and stays (`emptyDir: {}`).
const MAPS: [&str; 9] = [
    "annotations",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "options",
    "requests",
    "userAnnotations",
    "volumeAttributes",
];
/// Fields whose Go type is a plain `bool`: `false` is left out.
const FLAGS: [&str; 7] = [
    "chapAuthDiscovery",
    "chapAuthSession",
    "readOnly",
    "sslEnabled",
    "stdin",
    "stdinOnce",
    "tty",
];
/// Fields whose Go type is a plain integer: 0 is left out.
const NUMBERS: [&str; 7] = [
    "failureThreshold",
    "hostPort",
    "initialDelaySeconds",
    "partition",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
];
/// Fields whose Go type is a pointer, or that lack `omitempty`: an empty one stays. With the field above
/// where the same name is something else elsewhere.
const POINTERS: [&str; 30] = [
    "apiGroup",
    "azureDisk.cachingMode",
    "azureDisk.fsType",
    "azureDisk.kind",
    "azureDisk.readOnly",
    "clusterTrustBundle.name",
    "clusterTrustBundle.signerName",
    "csi.fsType",
    "csi.readOnly",
    "dataSourceRef.namespace",
    "fsGroupChangePolicy",
    "gmsaCredentialSpec",
    "gmsaCredentialSpecName",
    "hostPath.type",
    "initiatorName",
    "lifecycle.stopSignal",
    "localhostProfile",
    "mountPropagation",
    "onExitCodes.containerName",
    "procMount",
    "projected.sources",
    "recursiveReadOnly",
    "restartPolicy",
    "runAsUserName",
    "seLinuxChangePolicy",
    "service",
    "storageClassName",
    "supplementalGroupsPolicy",
    "volumeAttributesClassName",
    "volumeMode",
];
/// Structs that are no pointers, below the field that they belong to: they appear where they lack.
const STRUCTS: [(&str, &str); 2] = [("volumeClaimTemplate", "metadata"), ("spec", "resources")];
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
    normalise_in("", value);
}

/// As [`normalise`], for the value of the field `parent`, or an item of it.
fn normalise_in(parent: &str, value: &mut Value) {
    match value {
        Value::Object(object) => normalise_object(parent, object),
        Value::Array(items) => items.iter_mut().for_each(|item| normalise_in(parent, item)),
        _ => {}
    }
}

fn normalise_object(parent: &str, object: &mut Map<String, Value>) {
    for (key, value) in object.iter_mut() {
        match value {
            Value::Object(resources) if matches!(key.as_str(), "requests" | "limits") => {
                resources.values_mut().for_each(rewrite);
            }
            // The values of a map are data, empty or not.
            Value::Object(_) if MAPS.contains(&key.as_str()) => {}
            _ if QUANTITIES.contains(&key.as_str()) => rewrite(value),
            _ => normalise_in(key, value),
        }
    }
    if parent == "resourceFieldRef" {
        object.entry("divisor").or_insert_with(|| json!("0"));
    }
    object.retain(|key, value| match value {
        Value::Null => false,
        _ if is_pointer(parent, key) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty() || !MAPS.contains(&key.as_str()),
        Value::Bool(flag) => *flag || !FLAGS.contains(&key.as_str()),
        Value::Number(number) => number.as_i64() != Some(0) || !NUMBERS.contains(&key.as_str()),
    });
    for (_, field) in STRUCTS.iter().filter(|(owner, _)| *owner == parent) {
        object.entry(*field).or_insert_with(|| json!({}));
    }
}

fn is_pointer(parent: &str, key: &str) -> bool {
    POINTERS.iter().any(|pointer| match pointer.split_once('.') {
        Some((owner, field)) => owner == parent && field == key,
        None => *pointer == key,
    })
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

    #[test]
    fn pointers_and_the_data_in_maps_survive_though_empty() {
        for overrides in [
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x", "type": ""}}]}),
            json!({"volumes": [{"name": "v", "csi": {"driver": "d", "readOnly": false, "volumeAttributes": {"a": ""}}}]}),
            json!({"volumes": [{"name": "v", "projected": {"sources": []}}]}),
            json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate":
                {"metadata": {}, "spec": {"resources": {}, "storageClassName": ""}}}}]}),
            json!({"podSecurityContext": {"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": ""}}}),
            json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                [{"topologyKey": "", "labelSelector": {"matchLabels": {"a": ""}}}]}}}),
        ] {
            let spec = json!({"prompt": "p", "podOverrides": overrides});
            assert_eq!(round_trip(&spec), spec);
        }
    }

    #[test]
    fn zeros_and_missing_structs_do_not_survive() {
        for overrides in [
            json!({"volumes": [{"name": "v", "awsElasticBlockStore": {"volumeID": "x", "partition": 0}}]}),
            json!({"volumes": [{"name": "v", "flexVolume": {"driver": "d", "options": {}}}]}),
            json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {}}}}}]}),
            json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"metadata": {}, "spec": {}}}}]}),
            json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1.2Gi"}}]}),
            json!({"extraContainers": [{"name": "a", "resources": {}, "livenessProbe": {"exec": {}, "timeoutSeconds": 0}}]}),
            json!({"extraContainers": [{"name": "a", "resources": {}, "ports": [{"containerPort": 1, "hostPort": 0}]}]}),
        ] {
            let spec = json!({"prompt": "p", "podOverrides": overrides});
            assert_ne!(round_trip(&spec), spec);
        }
    }
}
