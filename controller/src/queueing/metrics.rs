//! The metrics of queues.

use jiff::SignedDuration;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use taskgate_policy::QueueReason;

use crate::metrics::registered;

/// Upper bounds of the waiting time, in seconds: from "at once" to a day.
const BUCKETS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    namespace: String,
    queue: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueReasonLabels {
    reason: &'static str,
}

/// The metrics of queues. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct QueueingMetrics {
    waited: Family<QueueLabels, Histogram, fn() -> Histogram>,
    states: Family<QueueReasonLabels, Counter>,
}

impl QueueingMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let waited = Family::<_, _, fn() -> Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register_with_unit(
            "queue_wait",
            "How long Jobs waited until Kueue admitted them. Queues that exist, and no others, have a label here",
            Unit::Seconds,
            waited.clone(),
        );
        let states = registered(
            registry,
            "queue_states",
            "How often the condition Queued of a Task got another reason, by reason",
        );
        Self { waited, states }
    }

    /// The condition of a Task got `reason`; `waited` when its Job was admitted just now.
    pub(super) fn state_changed(
        &self,
        namespace: &str,
        queue: &str,
        reason: QueueReason,
        waited: Option<SignedDuration>,
    ) {
        let labels = QueueReasonLabels { reason: reason.into() };
        self.states.get_or_create(&labels).inc();
        if let Some(waited) = waited {
            let labels = QueueLabels {
                namespace: namespace.to_owned(),
                queue: queue.to_owned(),
            };
            self.waited.get_or_create(&labels).observe(waited.as_secs_f64());
        }
    }
}
