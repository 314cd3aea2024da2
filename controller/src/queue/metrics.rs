//! What is counted of queues.

use jiff::SignedDuration;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use taskgate_policy::QueueReason;

/// Upper bounds of the waiting time, in seconds: from "at once" to a day.
const BUCKETS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    namespace: String,
    queue: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: ReasonLabel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ReasonLabel(QueueReason);

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

/// The metrics of queues. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    waited: Family<QueueLabels, Histogram, fn() -> Histogram>,
    told: Family<ReasonLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            waited: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            told: Family::default(),
        }
    }
}

impl Metrics {
    /// Puts the metrics into `registry`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "queue_wait",
            "How long Jobs waited until Kueue admitted them. Queues that exist, and no others, have a label here",
            Unit::Seconds,
            self.waited.clone(),
        );
        registry.register(
            "queue_states",
            "How often a Task was told something new about its queue, by the reason of its condition",
            self.told.clone(),
        );
    }

    /// A Task was told `reason`; `waited` when its Job was admitted just now.
    pub(super) fn told(&self, namespace: &str, queue: &str, reason: QueueReason, waited: Option<SignedDuration>) {
        let reason = ReasonLabel(reason);
        self.told.get_or_create(&ReasonLabels { reason }).inc();
        if let Some(waited) = waited {
            let labels = QueueLabels {
                namespace: namespace.to_owned(),
                queue: queue.to_owned(),
            };
            self.waited.get_or_create(&labels).observe(waited.as_secs_f64());
        }
    }
}
