//! Warnings for the creator of a Task that Kelos would never start, without reporting why.

use serde_json::{Map, Value};
use taskgate_api::{
    kelos::{self, MAX_TASK_NAME, Task},
    keys,
};

use crate::{
    decision::{Detail, Effect, Finding, Governed},
    issue_source::Workspace,
    matching::Section,
};

/// The warnings for `task`, under the strongest policy that governs it.
pub(crate) fn findings<'a>(governed: &Governed<'a>, task: Task<'a>) -> Vec<Finding<'a>> {
    let Some(matched) = governed.sections.any else {
        return Vec::new();
    };
    let mut details = obstacles(task);
    details.extend(item_of_no_spawner(governed, task));
    if let (Some(name), Workspace::Absent) = (task.workspace(), governed.context.workspace) {
        details.push(Detail::WorkspaceMissing(name.to_owned()));
    }
    details
        .into_iter()
        .map(|detail| Finding::new(Section::Warnings, &matched, detail, Effect::Warn))
        .collect()
}

/// Why Kelos never starts the Task `object`, which it does not report. `None`: nothing is known that prevents it, or it has ended.
pub fn never_starts(object: &Value) -> Option<String> {
    let task = Task::of(object);
    let is_new = matches!(task.phase(), "" | "Pending") && task.deleting_since().is_none();
    // Kelos' finalizer shows that it could write the Task.
    let was_written = task.metadata().has_finalizer(kelos::FINALIZER);
    let stands = |detail: &Detail| !was_written || matches!(detail, Detail::NameTooLong(_));
    let detail = obstacles(task).into_iter().filter(|_| is_new).find(stands)?;
    let message = Finding::own(detail, Effect::Warn).message();
    Some(message.trim_start_matches("taskgate: ").to_owned())
}

/// What prevents Kelos from starting `task`.
fn obstacles(task: Task<'_>) -> Vec<Detail> {
    let mut details = Vec::new();
    let length = task.metadata().name().map_or(0, str::len);
    if length > MAX_TASK_NAME {
        details.push(Detail::NameTooLong(length));
    }
    let fields = task.spec().map(unstable_fields).unwrap_or_default();
    if !fields.is_empty() {
        details.push(Detail::SpecUnstable(fields));
    }
    details
}

/// The number that a Task without a spawner states as its item, where items are accounted for.
fn item_of_no_spawner(governed: &Governed<'_>, task: Task<'_>) -> Option<Detail> {
    let metadata = task.metadata();
    let stated = metadata
        .annotation(keys::ITEM)
        .or_else(|| metadata.label(keys::ITEM))?
        .trim();
    let is_number = !stated.is_empty() && stated.bytes().all(|byte| byte.is_ascii_digit());
    let applies = governed.identity().is_some() && task.spawner().is_none() && is_number;
    applies.then(|| Detail::ItemOfNoSpawner(stated.to_owned()))
}

// Specs that Kelos cannot write back. Kelos adds its finalizer by sending the whole Task through its Go types; where that changes the
// spec, the immutability rule refuses the write, for ever and unreported (kelos §6.9).

/// The fields of `spec`, as paths such as `podOverrides.resources.limits.cpu`, that Kelos would write back changed.
fn unstable_fields(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Value::Object(fields) = spec {
        walk_object("", "", fields, &mut found);
    }
    found
}

/// Walks an object that is the value of `parent`, or one of its items.
fn walk_object(path: &str, parent: &str, fields: &Map<String, Value>, found: &mut Vec<String>) {
    let written = ALWAYS_WRITTEN
        .split_whitespace()
        .filter_map(|field| field.split_once('.'));
    for (_, field) in written.filter(|(owner, _)| *owner == parent) {
        if fields.get(field).is_none_or(Value::is_null) {
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
    fn is_on(self, list: &str) -> bool {
        list.split_whitespace().any(|listed| match listed.split_once('.') {
            Some((parent, key)) => parent == self.parent && key == self.key,
            None => listed == self.key,
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

// Which fields Go's types change. Whether an empty value is dropped depends on how the field is declared (`omitempty`, a pointer or
// not), so the lists name fields: `model` wherever it is, `env.value` only directly below `env`, list items included. What the
// CRD's defaults put back is not on them. Other fields are assumed to be stable.

/// Strings that Go drops when they are empty. Pointers to strings are kept (`storageClassName`, `hostPath.type`).
const STRINGS: &str = "\
    apiVersion audience branch cephfs.path certificateChainPath credentialBundlePath datasetName \
    datasetUUID directory effect effort env.value exitCodes.operator fsType group host hostIP \
    httpGet.path image imagePullPolicy iscsiInterface keyPath keyType keyring level medium model \
    podCertificate.signerName pool ports.name prefix protectionDomain protocol pullPolicy reference \
    request resourceFieldRef.containerName restartPolicyRules.action revision role scheme \
    seLinuxOptions.type secret.secretName secretFile serviceAccountName storageMode storagePolicyID \
    storagePolicyName storagePool subPath subPathExpr tenant terminationMessagePath \
    terminationMessagePolicy tolerations.key tolerations.operator tolerations.value upstreamRepo user \
    volumeName volumeNamespace workingDir";
/// Booleans that Go drops when they are false.
const BOOLEANS: &str = "chapAuthDiscovery chapAuthSession readOnly sslEnabled stdin stdinOnce tty";
/// Numbers that Go drops when they are 0.
const NUMBERS: &str = "\
    failureThreshold hostPort initialDelaySeconds partition periodSeconds successThreshold \
    timeoutSeconds";
/// Fields that are on a list above by their name, and yet are kept.
const KEPT: &str = "azureDisk.fsType azureDisk.readOnly csi.fsType csi.readOnly fileKeyRef.volumeName rbd.image";
/// Lists that Go writes although they are empty; all others it drops.
const KEPT_LISTS: &str = "monitors nodeSelectorTerms onExitCodes.values rules sources";
/// Maps of strings: their values are data, and Go drops the map itself when it is empty.
const STRING_MAPS: &str = "annotations labels matchLabels nodeSelector options userAnnotations volumeAttributes";
/// Maps whose values are quantities; Go drops them too when they are empty.
const QUANTITY_MAPS: &str = "limits requests";
/// Single quantities.
const QUANTITIES: &str = "sizeLimit divisor";
/// Fields that Go writes although they are not set, behind their parent (an object or a list). Only a volumeClaimTemplate has a `spec`
/// in here.
const ALWAYS_WRITTEN: &str = "extraContainers.resources extraInitContainers.resources onPodConditions.status \
    resourceFieldRef.divisor volumeClaimTemplate.metadata spec.resources";

#[cfg(test)]
mod unstable_fields_tests {
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
    fn a_task_that_kelos_has_written_starts() {
        let task = |finalizer: &str, name: &str, phase: &str| json!({"metadata": {"name": name, "finalizers": [finalizer]}, "spec": {"model": ""}, "status": {"phase": phase}});
        let long = "l".repeat(64);
        for (task, part) in [
            (task("a/b", "t", ""), Some("leave out or write canonically: model")),
            (task(kelos::FINALIZER, "t", "Pending"), None),
            (task(kelos::FINALIZER, &long, "Pending"), Some("64 characters")),
            (task(kelos::FINALIZER, &long, "Failed"), None),
        ] {
            let why = never_starts(&task);
            let is_expected = why
                .as_deref()
                .map_or(part.is_none(), |why| part.is_some_and(|part| why.contains(part)));
            assert!(is_expected, "{task}: {why:?}");
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
