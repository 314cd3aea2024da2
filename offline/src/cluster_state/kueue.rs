//! The objects of Kueue.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use taskgate_api::kueue::{self, ConfigRef, Settings};
use taskgate_policy::KueueInfo;
use taskgate_webhook::ObjectKind;

/// Kueue's objects, by name, and its configuration.
#[derive(Debug, Default)]
pub(super) struct KueueObjects {
    /// By namespace.
    queues: BTreeMap<String, BTreeSet<String>>,
    classes: BTreeSet<String>,
    settings: Option<Settings>,
    is_served: bool,
}

impl KueueObjects {
    /// Adds `object`, if it concerns Kueue.
    pub(super) fn add(&mut self, kind: &ObjectKind, namespace: &str, name: &str, object: &Value) {
        match (kind.group.as_str(), kind.kind.as_str()) {
            (kueue::GROUP, kind) => {
                self.is_served = true;
                match kind {
                    "LocalQueue" => {
                        self.queues
                            .entry(namespace.to_owned())
                            .or_default()
                            .insert(name.to_owned());
                    }
                    "WorkloadPriorityClass" => _ = self.classes.insert(name.to_owned()),
                    _ => {}
                }
            }
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                self.is_served |= object["spec"]["group"] == kueue::GROUP;
            }
            ("", "ConfigMap") => {
                let default = ConfigRef::default();
                let text = object["data"][ConfigRef::KEY].as_str();
                if let (true, true, Some(text)) = (namespace == default.namespace, name == default.name, text) {
                    self.settings = Settings::read(namespace, text).ok();
                }
            }
            _ => {}
        }
    }

    /// Kueue as the server's cache has it. Without `complete`, a missing object may exist.
    pub(super) fn info(
        &self,
        namespace: &str,
        namespace_labels: &BTreeMap<String, String>,
        complete: bool,
    ) -> KueueInfo {
        let default = || Settings::of_namespace(&ConfigRef::default().namespace);
        let settings = self.settings.clone().unwrap_or_else(default);
        let known = complete && self.is_served;
        let queues = || self.queues.get(namespace).cloned().unwrap_or_default();
        KueueInfo {
            manages_namespace: Some(settings.manages(namespace_labels)),
            installed: (self.is_served || complete).then_some(self.is_served),
            local_queues: known.then(queues),
            priority_classes: known.then(|| self.classes.clone()),
        }
    }
}
