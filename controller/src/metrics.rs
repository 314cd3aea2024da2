//! What the controller counts.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::AtomicU64,
};

use kube::ResourceExt as _;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use taskgate_api::{
    WorkItem, kelos,
    work_item::{Breaker, Outcome},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpawnerLabels {
    spawner: String,
    namespace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: OutcomeLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OutcomeLabel(&'static str);

impl EncodeLabelValue for OutcomeLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

/// The labels that Kelos gives the metric (kelos §6.11).
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    reconcile: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NamespaceLabels {
    namespace: String,
}

/// The controller's metrics. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    circuit_broken: Family<SpawnerLabels, Counter>,
    attempts: Family<OutcomeLabels, Counter>,
    cost: Counter<f64, AtomicU64>,
    completed: Family<CompletedLabels, Counter>,
    cancellations: Family<TriggerLabels, Counter>,
    metadata: Family<ResultLabels, Counter>,
    open_items: Family<NamespaceLabels, Gauge>,
    evicted_open: Counter,
    panics: Family<ReconcileLabels, Counter>,
    leader: Gauge,
    disabled: Gauge,
    pub(crate) queue: crate::queue::Metrics,
    pub(crate) retry: crate::retry::Metrics,
}

impl Metrics {
    /// Puts the metrics into `registry`: ours under `prefix`, and the one that seed 000 named under its name.
    pub fn register(registry: &mut Registry, prefix: &str) -> Self {
        let metrics = Self::default();
        registry.register(
            "kelos_spawner_items_circuit_broken",
            "Items that a spawner leaves out because they failed too often (seed 000): one more each time an item opens",
            metrics.circuit_broken.clone(),
        );
        registry.register(
            "kelos_task_completed",
            "Tasks that were cancelled, with the labels of Kelos' own counter, which has them as Failed",
            metrics.completed.clone(),
        );
        let registry = registry.sub_registry_with_prefix(prefix);
        registry.register(
            "attempts_recorded",
            "Ends of Tasks that were written to a WorkItem",
            metrics.attempts.clone(),
        );
        registry.register(
            "cancellations",
            "Tasks that were cancelled, by what set it off",
            metrics.cancellations.clone(),
        );
        registry.register(
            "metadata_completed",
            "Tasks that got the labels and annotations that waited for the tracker; skipped: not all of them",
            metrics.metadata.clone(),
        );
        registry.register(
            "item_cost_usd",
            "What the recorded attempts cost, in US dollars",
            metrics.cost.clone(),
        );
        registry.register(
            "open_items",
            "Items whose breaker is not closed",
            metrics.open_items.clone(),
        );
        registry.register(
            "open_items_evicted",
            "Open items that were forgotten because a namespace has too many WorkItems",
            metrics.evicted_open.clone(),
        );
        registry.register(
            "reconcile_panics",
            "Reconciles that panicked, and are tried again: a bug, please report it",
            metrics.panics.clone(),
        );
        metrics.queue.register(registry);
        metrics.retry.register(registry);
        registry.register("leader", "1 where the controller runs", metrics.leader.clone());
        registry.register(
            "disabled",
            "1 while taskgate is disabled: its webhooks are off and its controller rests",
            metrics.disabled.clone(),
        );
        metrics
    }

    /// A reconcile of this name panicked.
    pub(crate) fn panicked(&self, reconcile: &'static str) {
        self.panics.get_or_create(&ReconcileLabels { reconcile }).inc();
    }

    pub(crate) fn recorded(&self, outcome: Outcome, cost_usd: Option<&str>) {
        let outcome = OutcomeLabel(match outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Infrastructure => "infrastructure",
            Outcome::Cancelled => "cancelled",
            Outcome::Deleted => "deleted",
            Outcome::Stopped => "stopped",
        });
        self.attempts.get_or_create(&OutcomeLabels { outcome }).inc();
        self.paid(cost_usd);
    }

    /// It became known what an attempt cost.
    pub(crate) fn paid(&self, cost_usd: Option<&str>) {
        if let Some(cost) = cost_usd.and_then(|cost| cost.parse().ok()) {
            self.cost.inc_by(cost);
        }
    }

    /// A Task was cancelled. A Kelos that knows cancelled Tasks counts them as such itself.
    pub(crate) fn cancelled(&self, namespace: &str, agent_type: &str, trigger: &'static str, known_to_kelos: bool) {
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

    /// A Task got what waited for its tracker, or some of it.
    pub(crate) fn completed_metadata(&self, skipped: bool) {
        let result = if skipped { "skipped" } else { "set" };
        self.metadata.get_or_create(&ResultLabels { result }).inc();
    }

    pub(crate) fn opened(&self, namespace: &str, spawner: Option<&str>) {
        let labels = SpawnerLabels {
            spawner: spawner.unwrap_or_default().to_owned(),
            namespace: namespace.to_owned(),
        };
        self.circuit_broken.get_or_create(&labels).inc();
    }

    /// The gauge of open items, to be kept by whoever leads.
    pub(crate) fn open_items(&self) -> OpenItems {
        OpenItems {
            gauge: self.open_items.clone(),
            names: HashMap::new(),
        }
    }

    pub(crate) fn evicted_open(&self) {
        self.evicted_open.inc();
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub(crate) fn disabled(&self, disabled: bool) {
        self.disabled.set(i64::from(disabled));
    }
}

/// Which items are open, and their number per namespace as a gauge, which goes with this: only the leader knows.
#[derive(Debug)]
pub(crate) struct OpenItems {
    gauge: Family<NamespaceLabels, Gauge>,
    names: HashMap<String, HashSet<String>>,
}

impl OpenItems {
    /// Takes note of an item.
    pub(crate) fn put(&mut self, item: &WorkItem, gone: bool) {
        let namespace = item.namespace().unwrap_or_default();
        let breaker = item.status.as_ref().and_then(|status| status.breaker);
        let open = !gone && matches!(breaker, Some(Breaker::Open | Breaker::HalfOpen));
        let names = self.names.entry(namespace.clone()).or_default();
        if open {
            names.insert(item.name_any());
        } else {
            names.remove(&item.name_any());
        }
        let count = i64::try_from(names.len()).unwrap_or(i64::MAX);
        self.gauge.get_or_create(&NamespaceLabels { namespace }).set(count);
    }

    /// Forgets everything: the items are listed anew.
    pub(crate) fn clear(&mut self) {
        self.names.clear();
        self.gauge.clear();
    }
}

impl Drop for OpenItems {
    fn drop(&mut self) {
        self.gauge.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(name: &str, breaker: &str) -> WorkItem {
        serde_json::from_value(json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": {"name": name, "namespace": "team"},
            "spec": {"key": name, "item": name}, "status": {"breaker": breaker},
        }))
        .unwrap()
    }

    #[test]
    fn open_items_are_told_by_whoever_leads_and_only_as_long_as_he_does() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "taskgate");
        let told = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let line = text.lines().find(|line| line.starts_with("taskgate_open_items{"));
            line.map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
        };
        let mut open = metrics.open_items();
        open.put(&item("a", "Open"), false);
        open.put(&item("b", "HalfOpen"), false);
        open.put(&item("c", "Closed"), false);
        assert_eq!(told().as_deref(), Some("2"));
        open.put(&item("b", "Open"), true);
        assert_eq!(told().as_deref(), Some("1"));
        // What went while the watch was interrupted is in no list.
        open.clear();
        open.put(&item("b", "Open"), false);
        assert_eq!(told().as_deref(), Some("1"));
        drop(open);
        assert_eq!(told(), None);
    }
}
