//! The metrics of retries.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use taskgate_api::task_policy::RetriedKind;

use crate::metrics::registered;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// The metrics of retries. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RetryMetrics {
    retries: Family<RetryLabels, Counter>,
}

impl RetryMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        Self {
            retries: registered(registry, "retries", "Retries of failed Workloads and Tasks, by outcome"),
        }
    }

    pub(super) fn count(&self, kind: RetriedKind, outcome: &'static str) {
        let kind = kind.into();
        self.retries.get_or_create(&RetryLabels { kind, outcome }).inc();
    }
}
