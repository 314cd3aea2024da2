//! The breaker's metrics.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::AtomicU64,
};

use kube::ResourceExt as _;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use taskgate_api::{WorkItem, work_item::Outcome};

use crate::{metrics::registered, work_items::is_tripped};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpawnerLabels {
    spawner: String,
    namespace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NamespaceLabels {
    namespace: String,
}

/// The breaker's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct BreakerMetrics {
    circuit_broken: Family<SpawnerLabels, Counter>,
    attempts: Family<OutcomeLabels, Counter>,
    cost: Counter<f64, AtomicU64>,
    open_items: Family<NamespaceLabels, Gauge>,
    evicted_open: Counter,
}

impl BreakerMetrics {
    /// One metric has the name that the proposal gives it, the others are under `prefix`.
    pub(crate) fn register(registry: &mut Registry, prefix: &str) -> Self {
        let circuit_broken = registered(
            registry,
            "kelos_spawner_items_circuit_broken",
            "Items that a spawner skips because they failed too often: one more each time the breaker of an item opens",
        );
        let registry = registry.sub_registry_with_prefix(prefix);
        Self {
            circuit_broken,
            attempts: registered(
                registry,
                "attempts_recorded",
                "Ends of Tasks that were recorded in a WorkItem",
            ),
            cost: registered(
                registry,
                "item_cost_usd",
                "What the recorded attempts cost, in US dollars",
            ),
            open_items: registered(registry, "open_items", "Items whose breaker is not closed"),
            evicted_open: registered(
                registry,
                "open_items_evicted",
                "Items with an open breaker whose WorkItem was deleted because a namespace has too many of them",
            ),
        }
    }

    /// An attempt was recorded.
    pub(super) fn recorded(&self, outcome: Outcome, cost_usd: Option<&str>) {
        let outcome = match outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Infrastructure => "infrastructure",
            Outcome::Cancelled => "cancelled",
            Outcome::Deleted => "deleted",
            Outcome::Stopped => "stopped",
        };
        self.attempts.get_or_create(&OutcomeLabels { outcome }).inc();
        self.paid(cost_usd);
    }

    /// Adds the cost of an attempt.
    pub(super) fn paid(&self, cost_usd: Option<&str>) {
        if let Some(cost) = cost_usd.and_then(|cost| cost.parse().ok()) {
            self.cost.inc_by(cost);
        }
    }

    /// The breaker of an item opened.
    pub(super) fn tripped(&self, namespace: &str, spawner: Option<&str>) {
        let labels = SpawnerLabels {
            spawner: spawner.unwrap_or_default().to_owned(),
            namespace: namespace.to_owned(),
        };
        self.circuit_broken.get_or_create(&labels).inc();
    }

    /// The `WorkItem` of a tripped item was deleted because of the limit.
    pub(super) fn evicted_tripped(&self) {
        self.evicted_open.inc();
    }

    pub(super) fn tripped_items(&self) -> TrippedItems {
        TrippedItems {
            gauge: self.open_items.clone(),
            names: HashMap::new(),
        }
    }
}

/// The tripped items, and their number per namespace as a gauge. The gauge disappears with this value: only the leader knows it.
#[derive(Debug)]
pub(crate) struct TrippedItems {
    gauge: Family<NamespaceLabels, Gauge>,
    names: HashMap<String, HashSet<String>>,
}

impl TrippedItems {
    /// Updates the count for an item that was written or deleted.
    pub(crate) fn put(&mut self, item: &WorkItem, deleted: bool) {
        let namespace = item.namespace().unwrap_or_default();
        let names = self.names.entry(namespace.clone()).or_default();
        if !deleted && is_tripped(item) {
            names.insert(item.name_any());
        } else {
            names.remove(&item.name_any());
        }
        let count = i64::try_from(names.len()).unwrap_or(i64::MAX);
        self.gauge.get_or_create(&NamespaceLabels { namespace }).set(count);
    }
}

impl Drop for TrippedItems {
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
    fn tripped_items_are_counted_by_the_leader_only_while_it_leads() {
        let mut registry = Registry::default();
        let metrics = BreakerMetrics::register(&mut registry, "taskgate");
        let value = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let line = text.lines().find(|line| line.starts_with("taskgate_open_items{"));
            line.map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
        };
        let mut tripped = metrics.tripped_items();
        tripped.put(&item("a", "Open"), false);
        tripped.put(&item("b", "HalfOpen"), false);
        tripped.put(&item("c", "Closed"), false);
        assert_eq!(value().as_deref(), Some("2"));
        tripped.put(&item("b", "Open"), true);
        assert_eq!(value().as_deref(), Some("1"));
        drop(tripped);
        assert_eq!(value(), None);
    }
}
