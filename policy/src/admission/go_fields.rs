//! Which fields Go's types change. Whether an empty value is dropped depends on how the field is declared (`omitempty`, a
//! pointer or not), so the lists name fields: `model` wherever it is, `env.value` only directly below `env`, list items
//! included. What the CRD's defaults put back is not on them.

/// Strings that Go drops when they are empty. Pointers to strings are kept (`storageClassName`, `hostPath.type`).
pub(super) const STRINGS: &[&str] = &[
    "apiVersion",
    "audience",
    "branch",
    "cephfs.path",
    "certificateChainPath",
    "credentialBundlePath",
    "datasetName",
    "datasetUUID",
    "directory",
    "effect",
    "effort",
    "env.value",
    "exitCodes.operator",
    "fsType",
    "group",
    "host",
    "hostIP",
    "httpGet.path",
    "image",
    "imagePullPolicy",
    "iscsiInterface",
    "keyPath",
    "keyType",
    "keyring",
    "level",
    "medium",
    "model",
    "podCertificate.signerName",
    "pool",
    "ports.name",
    "prefix",
    "protectionDomain",
    "protocol",
    "pullPolicy",
    "reference",
    "request",
    "resourceFieldRef.containerName",
    "restartPolicyRules.action",
    "revision",
    "role",
    "scheme",
    "seLinuxOptions.type",
    "secret.secretName",
    "secretFile",
    "serviceAccountName",
    "storageMode",
    "storagePolicyID",
    "storagePolicyName",
    "storagePool",
    "subPath",
    "subPathExpr",
    "tenant",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tolerations.key",
    "tolerations.operator",
    "tolerations.value",
    "upstreamRepo",
    "user",
    "volumeName",
    "volumeNamespace",
    "workingDir",
];
/// Booleans that Go drops when they are false.
pub(super) const BOOLEANS: &[&str] = &[
    "chapAuthDiscovery",
    "chapAuthSession",
    "readOnly",
    "sslEnabled",
    "stdin",
    "stdinOnce",
    "tty",
];
/// Numbers that Go drops when they are 0.
pub(super) const NUMBERS: &[&str] = &[
    "failureThreshold",
    "hostPort",
    "initialDelaySeconds",
    "partition",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
];
/// Fields that are on a list above by their name, and yet are kept.
pub(super) const KEPT: &[&str] = &[
    "azureDisk.fsType",
    "azureDisk.readOnly",
    "csi.fsType",
    "csi.readOnly",
    "fileKeyRef.volumeName",
    "rbd.image",
];
/// Lists that Go writes although they are empty; all others it drops.
pub(super) const KEPT_LISTS: &[&str] = &[
    "monitors",
    "nodeSelectorTerms",
    "onExitCodes.values",
    "rules",
    "sources",
];
/// Maps of strings: their values are data, and Go drops the map itself when it is empty.
pub(super) const STRING_MAPS: &[&str] = &[
    "annotations",
    "labels",
    "matchLabels",
    "nodeSelector",
    "options",
    "userAnnotations",
    "volumeAttributes",
];
/// Maps whose values are quantities; Go drops them too when they are empty.
pub(super) const QUANTITY_MAPS: &[&str] = &["limits", "requests"];
/// Single quantities.
pub(super) const QUANTITIES: &[&str] = &["sizeLimit", "divisor"];
/// Fields that Go writes although they are not set: the parent (an object or a list), and the field.
pub(super) const ALWAYS_WRITTEN: &[(&str, &str)] = &[
    ("extraContainers", "resources"),
    ("extraInitContainers", "resources"),
    ("onPodConditions", "status"),
    ("resourceFieldRef", "divisor"),
    ("volumeClaimTemplate", "metadata"),
    // Only a volumeClaimTemplate has a `spec` in here.
    ("spec", "resources"),
];
