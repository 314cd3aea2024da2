//! Specs that Kelos cannot write back. Kelos adds its finalizer by sending the whole Task through its Go types; where that changes
//! the spec, the immutability rule refuses the write, for ever and unreported (kelos §6.9).
//!
//! The known changes of Go's types are listed in `go_fields`; other fields are assumed to be stable.

use super::go_fields::{
    ALWAYS_WRITTEN, BOOLEANS, KEPT, KEPT_LISTS, NUMBERS, QUANTITIES, QUANTITY_MAPS, STRING_MAPS, STRINGS,
};
use serde_json::{Map, Value};

/// The fields of `spec`, as paths such as `podOverrides.resources.limits.cpu`, that Kelos would write back changed.
pub(crate) fn unstable_fields(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Value::Object(fields) = spec {
        walk_object("", "", fields, &mut found);
    }
    found
}

/// Walks an object that is the value of `parent`, or one of its items.
fn walk_object(path: &str, parent: &str, fields: &Map<String, Value>, found: &mut Vec<String>) {
    for (_, field) in ALWAYS_WRITTEN.iter().filter(|(owner, _)| *owner == parent) {
        if fields.get(*field).is_none_or(Value::is_null) {
            found.push(format!("{path}.{field}"));
        }
    }
    for (key, value) in fields {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        walk(&path, Field { parent, key }, value, found);
    }
}

fn walk(path: &str, field: Field<'_>, value: &Value, found: &mut Vec<String>) {
    if field.changes(value) {
        found.push(path.to_owned());
    }
    match value {
        Value::Object(_) if field.is_on(STRING_MAPS) => {}
        Value::Object(quantities) if field.is_on(QUANTITY_MAPS) => found.extend(
            quantities
                .iter()
                .filter(|(_, quantity)| is_unstable_quantity(quantity))
                .map(|(name, _)| format!("{path}.{name}")),
        ),
        Value::Object(fields) => walk_object(path, field.key, fields, found),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if let Value::Object(fields) = item {
                    walk_object(&format!("{path}[{index}]"), field.key, fields, found);
                }
            }
        }
        _ => {}
    }
}

/// A field and the field that it is directly below.
#[derive(Clone, Copy)]
struct Field<'a> {
    parent: &'a str,
    key: &'a str,
}

impl Field<'_> {
    fn is_on(self, list: &[&str]) -> bool {
        list.iter().any(|listed| match listed.split_once('.') {
            Some((parent, key)) => parent == self.parent && key == self.key,
            None => *listed == self.key,
        })
    }

    /// Whether Go writes this value differently; nested values are checked separately.
    fn changes(self, value: &Value) -> bool {
        let dropped = |list| self.is_on(list) && !self.is_on(KEPT);
        match value {
            Value::String(_) | Value::Number(_) if self.is_on(QUANTITIES) => is_unstable_quantity(value),
            Value::String(text) => text.is_empty() && dropped(STRINGS),
            Value::Bool(flag) => !flag && dropped(BOOLEANS),
            Value::Number(number) => number.as_i64() == Some(0) && dropped(NUMBERS),
            Value::Array(items) => items.is_empty() && !self.is_on(KEPT_LISTS),
            Value::Object(fields) => fields.is_empty() && (self.is_on(STRING_MAPS) || self.is_on(QUANTITY_MAPS)),
            // The API server drops null values before admission.
            Value::Null => false,
        }
    }
}

/// A quantity written as a number comes back as a string.
fn is_unstable_quantity(value: &Value) -> bool {
    match value {
        Value::String(text) => crate::kubernetes::canonical_quantity(text).is_some_and(|canonical| canonical != *text),
        Value::Null => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_seen_to_block_a_task_is_found() {
        for (spec, expected) in [
            (
                json!({"podOverrides": {"resources": {"limits": {"cpu": "0.5"}}}}),
                "podOverrides.resources.limits.cpu",
            ),
            (
                json!({"worker": {"podOverrides": {"resources": {"requests": {"cpu": 1}}}}}),
                "worker.podOverrides.resources.requests.cpu",
            ),
            (json!({"model": ""}), "model"),
            (json!({"dependsOn": []}), "dependsOn"),
            (
                json!({"podOverrides": {"extraContainers": [{"name": "a"}]}}),
                "podOverrides.extraContainers[0].resources",
            ),
            (
                json!({"podOverrides": {"env": [{"name": "A", "value": ""}]}}),
                "podOverrides.env[0].value",
            ),
            (json!({"podOverrides": {"labels": {}}}), "podOverrides.labels"),
            (
                json!({"podOverrides": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}]}}),
                "podOverrides.volumes[0].emptyDir.sizeLimit",
            ),
            (
                json!({"podOverrides": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": 5}}]}}),
                "podOverrides.volumes[0].emptyDir.sizeLimit",
            ),
            (
                json!({"podOverrides": {"volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": false}]}}),
                "podOverrides.volumeMounts[0].readOnly",
            ),
            (
                json!({"podOverrides": {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}}),
                "podOverrides.env[0].valueFrom.resourceFieldRef.divisor",
            ),
            (
                json!({"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}}),
                "podFailurePolicy.rules[0].onPodConditions[0].status",
            ),
            (
                json!({"podOverrides": {"tolerations": [{"key": "", "operator": "Exists"}]}}),
                "podOverrides.tolerations[0].key",
            ),
            (
                json!({"podOverrides": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]}]}}}}}),
                "podOverrides.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values",
            ),
            (
                json!({"podOverrides": {"extraContainers": [{"name": "a", "resources": {},
                    "livenessProbe": {"httpGet": {"port": 80, "path": ""}}}]}}),
                "podOverrides.extraContainers[0].livenessProbe.httpGet.path",
            ),
            (
                json!({"podOverrides": {"extraInitContainers": [{"name": "a", "resources": {},
                    "ports": [{"containerPort": 80, "name": ""}]}]}}),
                "podOverrides.extraInitContainers[0].ports[0].name",
            ),
            (
                json!({"podOverrides": {"extraContainers": [{"name": "a", "resources": {},
                    "startupProbe": {"exec": {}, "timeoutSeconds": 0}}]}}),
                "podOverrides.extraContainers[0].startupProbe.timeoutSeconds",
            ),
            (
                json!({"podOverrides": {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {}}}}}]}}),
                "podOverrides.volumes[0].ephemeral.volumeClaimTemplate.metadata",
            ),
            (
                json!({"podOverrides": {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"metadata": {}, "spec": {}}}}]}}),
                "podOverrides.volumes[0].ephemeral.volumeClaimTemplate.spec.resources",
            ),
            (
                json!({"podOverrides": {"volumes": [{"name": "v", "csi": {"driver": "d", "volumeAttributes": {}}}]}}),
                "podOverrides.volumes[0].csi.volumeAttributes",
            ),
            (
                json!({"podOverrides": {"volumes": [{"name": "v", "awsElasticBlockStore": {"volumeID": "x", "partition": 0}}]}}),
                "podOverrides.volumes[0].awsElasticBlockStore.partition",
            ),
            (
                json!({"podOverrides": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1.2Gi"}}]}}),
                "podOverrides.volumes[0].emptyDir.sizeLimit",
            ),
        ] {
            assert_eq!(unstable_fields(&spec), [expected], "{spec}");
        }
    }

    #[test]
    fn fields_that_survive_the_round_trip_are_not_listed() {
        for spec in [
            json!(null),
            json!("text"),
            json!({"prompt": "", "ttlSecondsAfterFinished": 0, "model": null}),
            json!({"podOverrides": {"resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}, "labels": {"a": ""}}}),
            json!({"podOverrides": {"extraContainers": [{"name": "a", "resources": {}}], "podSecurityContext": {}}}),
            json!({"podOverrides": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"podOverrides": {"volumes": [{"name": "v", "hostPath": {"path": "/x", "type": ""}}]}}),
            json!({"podOverrides": {"volumes": [{"name": "v", "csi": {"driver": "d", "readOnly": false, "volumeAttributes": {"a": ""}}}]}}),
            json!({"podOverrides": {"volumes": [{"name": "v", "projected": {}}, {"name": "w", "projected": {"sources": []}}]}}),
            json!({"podOverrides": {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate":
                {"metadata": {}, "spec": {"resources": {}, "storageClassName": ""}}}}]}}),
            json!({"podOverrides": {"volumes": [{"name": "v", "azureDisk":
                {"diskName": "a", "diskURI": "b", "fsType": "ext4", "readOnly": false}}]}}),
            json!({"podOverrides": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "", "key": "k", "optional": false}}}]}}),
            json!({"podOverrides": {"imagePullSecrets": [{"name": ""}], "containerSecurityContext": {"privileged": false, "runAsUser": 0}}}),
            json!({"podOverrides": {"podSecurityContext": {"sysctls": [{"name": "a", "value": ""}],
                "seccompProfile": {"type": "RuntimeDefault", "localhostProfile": ""}}}}),
            json!({"podOverrides": {"extraContainers": [{"name": "a", "resources": {},
                "livenessProbe": {"grpc": {"port": 1, "service": ""}},
                "readinessProbe": {"httpGet": {"port": 0, "httpHeaders": [{"name": "a", "value": ""}]}}}]}}),
            json!({"podFailurePolicy": {"rules": [{"action": "FailJob",
                "onExitCodes": {"operator": "In", "values": [], "containerName": ""}}]}}),
        ] {
            assert_eq!(unstable_fields(&spec), [""; 0], "{spec}");
        }
    }
}
