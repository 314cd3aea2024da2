//! Random policies: some select nothing, some cannot be applied.

use serde_json::{Value, json};

use crate::draw::{CLASSES, Chance};

const MODES: [&str; 4] = ["Off", "Observe", "Warn", "Enforce"];

impl Chance {
    /// A `TaskPolicy` that the API server stores without admission.
    pub(crate) fn policy(&mut self, name: &str) -> Value {
        json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": name},
            "spec": self.policy_spec()})
    }

    /// A `ClusterTaskPolicy`, the same way.
    pub(crate) fn cluster_policy(&mut self, name: &str) -> Value {
        let mut spec = self.policy_spec();
        match self.below(3) {
            0 => spec["namespaceSelector"] = json!({"matchLabels": {"tier": self.one_of(&["gold", "silver"])}}),
            1 => {
                let values = json!([{"key": "tier", "operator": "NotIn", "values": ["gold"]}]);
                spec["namespaceSelector"] = json!({"matchExpressions": values});
            }
            _ => {}
        }
        json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "ClusterTaskPolicy", "metadata": {"name": name},
            "spec": spec})
    }

    pub(crate) fn policy_spec(&mut self) -> Value {
        let mut spec = json!({"priority": self.below(3)});
        if self.once_in(2) {
            spec["mode"] = json!(self.one_of(&MODES));
        }
        match self.below(6) {
            0 => spec["selector"] = json!({"spawnerNames": [self.one_of(&["fixer", "nightly", "missing"])]}),
            1 => spec["selector"] = json!({"spawnerSelector": {"matchLabels": {"kind": "issues"}}}),
            2 => spec["selector"] = json!({"taskSelector": {"matchLabels": {"team": self.one_of(&["blue", "red"])}}}),
            3 => spec["selector"] = json!({"taskTypes": [self.one_of(&["claude-code", "codex"])]}),
            _ => {}
        }
        if !self.once_in(3) {
            spec["failurePolicy"] = self.failure_section();
        }
        if self.once_in(2) {
            spec["queueName"] = json!(self.one_of(&[
                "agents",
                "q-{{ task.spec.type }}",
                "{{ spawner.metadata.labels.queue }}"
            ]));
            if self.once_in(3) {
                spec["queuePriorityClass"] = json!(self.one_of(&CLASSES));
            }
            if self.once_in(3) {
                spec["queueOnError"] = json!("Ignore");
            }
            if self.once_in(4) {
                spec["queueMode"] = json!(self.one_of(&MODES));
            }
        }
        if self.once_in(2) {
            spec["metadata"] = self.metadata_section();
        }
        match self.below(20) {
            0 => spec["queueName"] = json!("{{ unclosed"),
            1 => spec["metadata"] = json!({"labels": {"kelos.dev/task": "mine"}}),
            _ => {}
        }
        spec
    }

    fn failure_section(&mut self) -> Value {
        let mut section = json!({"maxRetriesPerItem": self.one_of(&[0, 1, 2, 3, 5])});
        if self.once_in(3) {
            section["resetAfter"] = json!("24h");
        }
        if self.once_in(3) {
            section["backoff"] = json!({"initial": "1h", "factor": 2, "max": "8h"});
        }
        if self.once_in(4) {
            section["mode"] = json!(self.one_of(&MODES));
        }
        if self.once_in(5) {
            section["itemKey"] =
                json!(self.one_of(&["{{ spawner.metadata.name }}", "{{ task.metadata.labels.team }}"]));
        }
        if self.once_in(4) {
            section["ignore"] = json!(["Evicted"]);
            section["maxInfrastructureFailures"] = json!(self.one_of(&[0, 3]));
        }
        section
    }

    fn metadata_section(&mut self) -> Value {
        let mut section = json!({
            "labels": {"team": self.one_of(&["blue", "{{ namespace.metadata.labels.tier }}", "{{ nothing.there }}"])},
            "annotations": {"example.com/by": "{{ task.spec.type }} {{ spawner.metadata.name }}"},
        });
        if self.once_in(3) {
            section["override"] = json!(true);
        }
        if self.once_in(2) {
            section["propagate"] = json!(self.one_of(&[&["Job"][..], &["Job", "Pod"], &["Pod"]]));
        }
        if self.once_in(4) {
            section["mode"] = json!(self.one_of(&MODES));
        }
        if self.once_in(4) {
            section["missingValue"] = json!("unknown");
        }
        section
    }

    /// A policy to be written, good or bad in one of many ways.
    pub(crate) fn written(&mut self, number: usize) -> Value {
        let name = format!("written-{number}");
        let mut policy = if self.once_in(3) {
            self.cluster_policy(&name)
        } else {
            self.policy(&name)
        };
        self.spoil(&mut policy["spec"], true);
        policy
    }

    /// Makes `spec` wrong in one of many ways, or leaves it. Whether with unknown fields too.
    pub(crate) fn spoil(&mut self, spec: &mut Value, unknown_fields: bool) {
        match self.below(14) {
            1 | 4 if !unknown_fields => {}
            0 => spec["mode"] = json!("Perhaps"),
            1 => spec["mod"] = json!("Warn"),
            2 => spec["priority"] = json!(2_000_000),
            3 => *spec = json!({"queuePriorityClass": "high"}),
            4 => spec["failurePolicy"] = json!({"resetAfter": "soon", "maxRetries": 3}),
            5 => spec["failurePolicy"] = json!({"backoff": {"max": "1h"}, "maxRetriesPerItem": "three"}),
            6 => spec["selector"] = json!({"spawnerNames": [7], "taskSelector": {"matchExpressions": [{"key": "a"}]}}),
            7 => *spec = json!({}),
            8 => spec["metadata"] = json!({"labels": {"Bad Key!": "x", "a": "{{ b"}}),
            9 => spec["retry"] = json!({"maxAttempts": 3}),
            10 => spec["failurePolicy"] = json!({"maxRetriesPerItem": 3.0}),
            11 => spec["metadata"] = json!({"labels": {"team": null, "area": "a"}}),
            _ => {}
        }
    }
}
