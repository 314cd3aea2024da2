//! What is counted of retries.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use taskgate_api::task_policy::RetriedKind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
    outcome: &'static str,
}

/// The metrics of retries. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    retries: Family<Labels, Counter>,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "retries",
            "What became of failed runs of Workloads and Tasks, by outcome",
            self.retries.clone(),
        );
    }

    pub(super) fn count(&self, kind: RetriedKind, outcome: &'static str) {
        let kind = kind.as_str();
        self.retries.get_or_create(&Labels { kind, outcome }).inc();
    }
}
