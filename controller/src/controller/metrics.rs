//! The controller's metrics: each feature owns its own.

use prometheus_client::registry::Registry;

use crate::{
    breaker::BreakerMetrics, cancellation::CancellationMetrics, leader_election::LeaderMetrics,
    metadata::MetadataMetrics, queueing::QueueingMetrics, retry::RetryMetrics, workqueue::PanicMetrics,
};

/// The controller's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) breaker: BreakerMetrics,
    pub(crate) cancellation: CancellationMetrics,
    pub(crate) metadata: MetadataMetrics,
    pub(crate) queueing: QueueingMetrics,
    pub(crate) retry: RetryMetrics,
    pub(crate) panics: PanicMetrics,
    pub(crate) leader: LeaderMetrics,
}

impl Metrics {
    /// Puts the metrics into `registry`: under `prefix`, or under the names that the proposals give them.
    pub fn register(registry: &mut Registry, prefix: &str) -> Self {
        let breaker = BreakerMetrics::register(registry, prefix);
        let cancellation = CancellationMetrics::register(registry, prefix);
        let registry = registry.sub_registry_with_prefix(prefix);
        Self {
            breaker,
            cancellation,
            metadata: MetadataMetrics::register(registry),
            queueing: QueueingMetrics::register(registry),
            retry: RetryMetrics::register(registry),
            panics: PanicMetrics::register(registry),
            leader: LeaderMetrics::register(registry),
        }
    }
}
