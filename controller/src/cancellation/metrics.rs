//! The metrics of cancellations.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use taskgate_api::kelos;

use crate::metrics::registered;

/// The labels that Kelos gives the metric.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CompletedLabels {
    namespace: String,
    r#type: String,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TriggerLabels {
    trigger: &'static str,
}

/// The metrics of cancellations. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CancellationMetrics {
    completed: Family<CompletedLabels, Counter>,
    cancellations: Family<TriggerLabels, Counter>,
}

impl CancellationMetrics {
    /// One metric has the name that Kelos gives it, the other is under `prefix`.
    pub(crate) fn register(registry: &mut Registry, prefix: &str) -> Self {
        Self {
            completed: registered(
                registry,
                "kelos_task_completed",
                "Tasks that were cancelled, with the labels of Kelos' own counter, which has them as Failed",
            ),
            cancellations: registered(
                registry.sub_registry_with_prefix(prefix),
                "cancellations",
                "Tasks that were cancelled, by trigger",
            ),
        }
    }

    /// A Task was cancelled. A Kelos that knows cancelled Tasks counts them as such itself.
    pub(super) fn cancelled(&self, namespace: &str, agent_type: &str, trigger: &'static str, known_to_kelos: bool) {
        self.cancellations.get_or_create(&TriggerLabels { trigger }).inc();
        if !known_to_kelos {
            let labels = CompletedLabels {
                namespace: namespace.to_owned(),
                r#type: agent_type.to_owned(),
                phase: kelos::CANCELLED,
            };
            self.completed.get_or_create(&labels).inc();
        }
    }
}
