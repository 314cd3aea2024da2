//! The objects of Kueue.

use std::collections::HashSet;

use serde_json::Value;
use taskgate_api::kueue::{self, ConfigRef, Settings};
use taskgate_policy::KueueInfo;
use taskgate_webhook::{ObjectKind, QueueLookup};

/// Kueue's objects, by name, and its configuration.
#[derive(Debug, Default)]
pub(super) struct KueueObjects {
    queues: HashSet<(String, String)>,
    classes: HashSet<String>,
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
                    "LocalQueue" => _ = self.queues.insert((namespace.to_owned(), name.to_owned())),
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

    /// The result that the server gets by reading the API server. Without `complete`, a missing object is unknown.
    pub(super) fn info(&self, lookup: QueueLookup<'_>, complete: bool) -> KueueInfo {
        let default = || Settings::of_namespace(&ConfigRef::default().namespace);
        let settings = self.settings.clone().unwrap_or_else(default);
        let manages = settings.manages(lookup.namespace_labels);
        let mut info = KueueInfo {
            manages_namespace: Some(manages),
            ..KueueInfo::default()
        };
        let Some((queue, class)) = lookup.names.filter(|_| manages) else {
            return info;
        };
        if !self.is_served {
            info.installed = complete.then_some(false);
            return info;
        }
        info.installed = Some(true);
        let known = |found: bool| (found || complete).then_some(found);
        info.local_queue = known(self.queues.contains(&(lookup.namespace.to_owned(), queue.to_owned())));
        info.priority_class = class.and_then(|class| known(self.classes.contains(class)));
        info
    }
}
