//! What taskgate knows of Kueue: its keys, its settings, and thin views of its objects. Source: Kueue v0.18; v0.15 and
//! later are alike in what is read here (kueue §0, §4).

use std::{collections::BTreeMap, fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt as _};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Lenient as _,
    condition::Condition,
    metadata::{Metadata, Owner},
    view::view,
};

/// Kueue's API group. Foreman has a kind called `Workload` too, in another group.
pub const GROUP: &str = "kueue.x-k8s.io";
/// The versions of Kueue's kinds that are understood, newest first.
pub const VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// Plural of Workload.
pub const WORKLOADS: &str = "workloads";
/// Plural of LocalQueue.
pub const LOCAL_QUEUES: &str = "localqueues";
/// Plural of WorkloadPriorityClass.
pub const PRIORITY_CLASSES: &str = "workloadpriorityclasses";

/// Prefix of Kueue's keys. A pod template must not have one of them: Kueue then refuses to start the Job (kueue §2).
pub const PREFIX: &str = "kueue.x-k8s.io/";
/// Label on a Job: the `LocalQueue` that admits it. On a Task, as label or annotation: the one that its creator asks for.
pub const QUEUE_NAME: &str = "kueue.x-k8s.io/queue-name";
/// Label on a Job: its `WorkloadPriorityClass`. On a Task, as label or annotation: the one that its creator asks for.
pub const PRIORITY_CLASS: &str = "kueue.x-k8s.io/priority-class";
/// Label on a Workload: the UID of its Job (kueue §4).
pub const JOB_UID: &str = "kueue.x-k8s.io/job-uid";

/// The name that a label, an annotation or a field states, without the spaces around it. An empty one, such as a Helm value that was
/// left empty, names nothing.
pub fn named(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|name| !name.is_empty())
}

/// The name under `key` that the creator of the object asks for: in a label, or else in an annotation.
pub fn requested<'a>(metadata: Metadata<'a>, key: &str) -> Option<&'a str> {
    named(metadata.label(key)).or_else(|| named(metadata.annotation(key)))
}

view! {
    /// Borrowed view of a Workload. Only types and statuses of its conditions may be branched on: reasons change between versions of
    /// Kueue (kueue §4).
    Workload
}

impl<'a> Workload<'a> {
    /// The Job of the Workload. Kueue has Workloads of other frameworks too, and Workloads without an owner.
    pub fn job(self) -> Option<Owner<'a>> {
        self.metadata()
            .controller()
            .filter(|owner| owner.is("batch", "Job") && !owner.uid.is_empty())
    }

    /// `spec.active`: false once it was deactivated, by a person or by Kueue.
    pub fn is_active(self) -> bool {
        self.0.pointer("/spec/active").and_then(Value::as_bool) != Some(false)
    }

    /// The `ClusterQueue` that reserved quota.
    pub fn cluster_queue(self) -> Option<&'a str> {
        self.0.text("/status/admission/clusterQueue")
    }

    /// Whether the condition of type `kind` is `True`.
    pub fn is(self, kind: &str) -> bool {
        self.condition(kind).is_some_and(Condition::is_true)
    }

    /// The admission checks that are not passed yet: name and message.
    pub fn pending_checks(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let text = |check: &'a Value, field| check.text(field).unwrap_or_default();
        let checks = self.0.items("/status/admissionChecks");
        checks
            .filter(|check| check["state"] != "Ready")
            .map(move |check| (text(check, "/name"), text(check, "/message")))
    }
}

view! {
    /// Borrowed view of a `LocalQueue`.
    LocalQueue
}

impl<'a> LocalQueue<'a> {
    /// Whether the queue is stopped.
    pub fn is_held(self) -> bool {
        self.0.text("/spec/stopPolicy").is_some_and(|policy| policy != "None")
    }

    /// The condition `Active`, which includes the `ClusterQueue`.
    pub fn active(self) -> Option<Condition<'a>> {
        self.condition("Active")
    }
}

/// Where Kueue's configuration is: a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRef {
    /// Its namespace, which is Kueue's.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ConfigRef {
    /// The key of the configuration in the ConfigMap, in every way that Kueue is installed.
    pub const KEY: &str = "controller_manager_config.yaml";
}

impl Default for ConfigRef {
    /// Where Kueue's own manifests put it.
    fn default() -> Self {
        Self {
            namespace: "kueue-system".to_owned(),
            name: "kueue-manager-config".to_owned(),
        }
    }
}

impl FromStr for ConfigRef {
    type Err = SettingsError;

    /// Reads `namespace/name`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(SettingsError::Form(format!("{text:?} is not NAMESPACE/NAME"))),
        }
    }
}

impl fmt::Display for ConfigRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The settings of Kueue that taskgate respects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    managed: Selector,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Configuration {
    namespace: Option<String>,
    managed_jobs_namespace_selector: Option<LabelSelector>,
}

/// Kueue's configuration cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It is no YAML, or of another form.
    #[error("{0}")]
    Form(String),
    /// Its selector is none.
    #[error("managedJobsNamespaceSelector: {0}")]
    Selector(String),
}

impl Settings {
    /// The defaults of Kueue in `namespace`: everything but `kube-system` and its
    /// own namespace is managed (kueue §1).
    ///
    /// # Panics
    /// Never: the selector is a legal one.
    pub fn of_namespace(namespace: &str) -> Self {
        let selector = LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "kubernetes.io/metadata.name".to_owned(),
                operator: "NotIn".to_owned(),
                values: Some(vec!["kube-system".to_owned(), namespace.to_owned()]),
            }]),
            match_labels: None,
        };
        let managed = Selector::try_from(selector).expect("NotIn with values is a selector");
        Self { managed }
    }

    /// Reads the configuration file of Kueue running in `namespace`.
    pub fn read(namespace: &str, yaml: &str) -> Result<Self, SettingsError> {
        // Comments that are kept have a limit, which a commented-out example exceeds.
        let options = serde_saphyr::options! { emit_comments: false, with_snippet: false };
        let read: Configuration = serde_saphyr::from_str_with_options(yaml, options)
            .map_err(|error| SettingsError::Form(error.to_string()))?;
        match read.managed_jobs_namespace_selector {
            None => Ok(Self::of_namespace(read.namespace.as_deref().unwrap_or(namespace))),
            Some(selector) => {
                let managed =
                    Selector::try_from(selector).map_err(|error| SettingsError::Selector(error.to_string()))?;
                Ok(Self { managed })
            }
        }
    }

    /// Whether Kueue manages Jobs of a namespace with these labels. It suspends a labelled Job in other namespaces too, and never
    /// starts it (kueue §1).
    pub fn manages(&self, namespace_labels: &BTreeMap<String, String>) -> bool {
        self.managed.matches(namespace_labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Job;
    use serde_json::json;

    #[test]
    fn a_blank_name_names_nothing() {
        for (labels, annotations, expected) in [
            (
                json!({(QUEUE_NAME): "label"}),
                json!({(QUEUE_NAME): "annotation"}),
                Some("label"),
            ),
            (
                json!({(QUEUE_NAME): ""}),
                json!({(QUEUE_NAME): "annotation\n"}),
                Some("annotation"),
            ),
            (json!({(QUEUE_NAME): ""}), json!({(QUEUE_NAME): " \n"}), None),
            (json!({(QUEUE_NAME): 7}), json!(null), None),
        ] {
            let object = json!({"metadata": {"labels": labels, "annotations": annotations}});
            assert_eq!(requested(Metadata::of(&object), QUEUE_NAME), expected, "{object}");
        }
        let job = json!({"metadata": {"labels": {(QUEUE_NAME): "", (PRIORITY_CLASS): ""}}});
        assert_eq!((Job::of(&job).queue(), Job::of(&job).priority_class()), (None, None));
    }

    #[test]
    fn only_a_job_makes_a_workload_ours() {
        let owned = |owner: Value| json!({"metadata": {"ownerReferences": [owner]}});
        let job = owned(json!({"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": "u", "controller": true}));
        assert_eq!(Workload::of(&job).job().map(|job| job.uid), Some("u"));
        for other in [
            json!(null),
            json!({"metadata": {"labels": {JOB_UID: "u"}}}),
            owned(json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u", "controller": true})),
            owned(json!({"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": "", "controller": true})),
        ] {
            assert!(Workload::of(&other).job().is_none(), "{other}");
        }
    }

    #[test]
    fn the_namespaces_that_kueue_manages() {
        let labels = |name: &str, team: &str| {
            BTreeMap::from([
                ("kubernetes.io/metadata.name".to_owned(), name.to_owned()),
                ("team".to_owned(), team.to_owned()),
            ])
        };
        let read = |yaml| Settings::read("queues", yaml).unwrap();
        let default = read("kind: Configuration\nwebhook: {port: 9443}");
        assert!(default.manages(&labels("team-a", "blue")));
        assert!(!default.manages(&labels("queues", "")) && !default.manages(&labels("kube-system", "")));
        let commented = format!("a:\n{}- b\nnamespace: elsewhere\n", "# - example\n".repeat(100));
        assert!(!read(&commented).manages(&labels("elsewhere", "")));
        let moved = read("namespace: elsewhere");
        assert!(moved.manages(&labels("queues", "")) && !moved.manages(&labels("elsewhere", "")));
        let chosen = read("managedJobsNamespaceSelector: {matchLabels: {team: blue}}");
        assert!(chosen.manages(&labels("a", "blue")) && !chosen.manages(&labels("a", "red")));
        for bad in [
            "a: [",
            "managedJobsNamespaceSelector: {matchExpressions: [{key: a, operator: Like}]}",
        ] {
            assert!(Settings::read("queues", bad).is_err(), "{bad}");
        }
    }
}
