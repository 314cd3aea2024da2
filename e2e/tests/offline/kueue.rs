//! A random Kueue, as far as decisions depend on it: its kinds, queues, priority classes and configuration exist or do not. No
//! controller works the queues.

use anyhow::Context as _;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, KUEUE_NAMESPACE};

use crate::draw::{CLASSES, Chance, QUEUES};

/// Kueue's kinds, as far as decisions depend on them: that they are installed, and that objects of a name exist.
fn crds() -> String {
    let crd = |kind: &str, plural: &str, scope: &str| {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        // A group of Kubernetes itself takes an approval, or a word about why there is none.
        let approval = json!({"api-approved.kubernetes.io": "unapproved, for a test"});
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.kueue.x-k8s.io"), "annotations": approval},
            "spec": {"group": "kueue.x-k8s.io", "scope": scope,
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": "v1beta2", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema}}]}})
        .to_string()
    };
    let queues = crd("LocalQueue", "localqueues", "Namespaced");
    let classes = crd("WorkloadPriorityClass", "workloadpriorityclasses", "Cluster");
    let workloads = crd("Workload", "workloads", "Namespaced");
    [queues, classes, workloads].join("\n---\n")
}

/// Installs cluster-wide parts of Kueue, or none. Whether there are any.
pub(crate) async fn install(cp: &ControlPlane, chance: &mut Chance) -> anyhow::Result<bool> {
    if chance.once_in(4) {
        return Ok(false);
    }
    cp.install_crds(&crds()).await?;
    let [known, _] = CLASSES;
    let mut objects = vec![
        json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "WorkloadPriorityClass", "metadata": {"name": known},
        "value": 1}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": KUEUE_NAMESPACE}}),
    ];
    if !chance.once_in(3) {
        let ignored = json!({"key": "tier", "operator": "NotIn", "values": ["bronze"]});
        let configuration = json!({"managedJobsNamespaceSelector": {"matchExpressions": [ignored]}});
        objects.push(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "kueue-manager-config", "namespace": KUEUE_NAMESPACE},
            "data": {"controller_manager_config.yaml": configuration.to_string()}}));
    }
    let objects: Vec<_> = objects.iter().map(Value::to_string).collect();
    let applied = cp.apply_yaml(&objects.join("\n---\n")).await;
    applied.context("what is there of Kueue")?;
    Ok(true)
}

/// The queues of a namespace.
pub(crate) fn queues(chance: &mut Chance) -> Vec<Value> {
    let there = QUEUES.into_iter().filter(|_| chance.once_in(2));
    there
        .map(|name| {
            json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": name},
                "spec": {"clusterQueue": "all"}})
        })
        .collect()
}
