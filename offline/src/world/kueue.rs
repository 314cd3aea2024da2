//! What the documents tell of Kueue.

use std::collections::HashSet;

use serde_json::Value;
use taskgate_api::kueue::{self, ConfigRef, Settings};
use taskgate_policy::KueueInfo;
use taskgate_webhook::{ObjectKind, QueueQuestion};

/// Kueue's objects, by name.
#[derive(Debug, Default)]
pub(super) struct Kueue {
    queues: HashSet<(String, String)>,
    classes: HashSet<String>,
    settings: Option<Settings>,
    is_served: bool,
}

impl Kueue {
    /// Takes note of `object`, if it is about Kueue.
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
                let usual = ConfigRef::default();
                let text = object["data"][ConfigRef::KEY].as_str();
                if let (true, true, Some(text)) = (namespace == usual.namespace, name == usual.name, text) {
                    self.settings = Settings::read(namespace, text).ok();
                }
            }
            _ => {}
        }
    }

    /// The same answers, in the same order, as the server gets from the API server.
    pub(super) fn facts(&self, question: QueueQuestion<'_>, complete: bool) -> KueueInfo {
        let default = || Settings::of_namespace(&ConfigRef::default().namespace);
        let settings = self.settings.clone().unwrap_or_else(default);
        let manages = settings.manages(question.namespace_labels);
        let mut facts = KueueInfo {
            manages_namespace: Some(manages),
            ..KueueInfo::default()
        };
        let Some((queue, class)) = question.names.filter(|_| manages) else {
            return facts;
        };
        if !self.is_served {
            facts.installed = complete.then_some(false);
            return facts;
        }
        facts.installed = Some(true);
        let known = |found: bool| (found || complete).then_some(found);
        facts.local_queue = known(self.queues.contains(&(question.namespace.to_owned(), queue.to_owned())));
        facts.priority_class = class.and_then(|class| known(self.classes.contains(class)));
        facts
    }
}
