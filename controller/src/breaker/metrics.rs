//! The breaker's metrics.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError, atomic::AtomicU64},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use taskgate_api::work_item::Outcome;
use taskgate_cache::{CachedWorkItem, ObjectChange};

use crate::metrics::registered;

/// The names and values of `N` labels.
type Labels<const N: usize> = [(&'static str, String); N];

/// The breaker's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct BreakerMetrics {
    circuit_broken: Family<Labels<2>, Counter>,
    attempts: Family<Labels<1>, Counter>,
    cost: Counter<f64, AtomicU64>,
    open_items: Family<Labels<1>, Gauge>,
    evicted_open: Counter,
}

impl BreakerMetrics {
    /// One metric has the name that the proposal gives it, the others are under `prefix`.
    pub(crate) fn register(registry: &mut Registry, prefix: &str) -> Self {
        let circuit_broken = registered(
            registry,
            "kelos_spawner_items_circuit_broken",
            "Items that a spawner skips, counted when the breaker of an item opens, for each spawner with a Task of it",
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
        self.attempts.get_or_create(&[("outcome", outcome.to_owned())]).inc();
        self.paid(cost_usd);
    }

    /// Adds the cost of an attempt.
    pub(super) fn paid(&self, cost_usd: Option<&str>) {
        if let Some(cost) = cost_usd.and_then(|cost| cost.parse().ok()) {
            self.cost.inc_by(cost);
        }
    }

    /// The breaker of an item opened: counted for each of its spawners, or once for an item without one.
    pub(super) fn tripped(&self, namespace: &str, spawners: &BTreeSet<String>) {
        let count = |spawner: &str| {
            let labels = [("spawner", spawner.to_owned()), ("namespace", namespace.to_owned())];
            self.circuit_broken.get_or_create(&labels).inc();
        };
        if spawners.is_empty() {
            count("");
        }
        for spawner in spawners {
            count(spawner);
        }
    }

    /// The `WorkItem` of a tripped item was deleted because of the limit.
    pub(super) fn evicted_tripped(&self) {
        self.evicted_open.inc();
    }

    pub(super) fn count_items(&self) -> ItemCounts {
        ItemCounts {
            gauge: self.open_items.clone(),
            namespaces: Mutex::default(),
        }
    }
}

/// How many `WorkItem`s each namespace has, as the watch showed them last, and how many of them are tripped. The latter is a gauge,
/// which disappears with this value: only the leader knows it.
#[derive(Debug)]
pub(super) struct ItemCounts {
    gauge: Family<Labels<1>, Gauge>,
    namespaces: Mutex<HashMap<String, usize>>,
}

impl ItemCounts {
    /// Counts a change of the watch.
    pub(super) fn changed(&self, change: &ObjectChange<CachedWorkItem>) {
        let namespace = change.key.namespace.clone();
        let tripped = |item: Option<&CachedWorkItem>| i64::from(item.is_some_and(CachedWorkItem::is_tripped));
        let (before, now) = (tripped(change.old.as_deref()), tripped(change.new.as_deref()));
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let count = namespaces.entry(namespace.clone()).or_default();
        *count = (*count + usize::from(change.new.is_some())).saturating_sub(usize::from(change.old.is_some()));
        self.gauge
            .get_or_create(&[("namespace", namespace)])
            .inc_by(now - before);
    }

    /// The `WorkItem`s of a namespace.
    pub(super) fn of(&self, namespace: &str) -> usize {
        let namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.get(namespace).copied().unwrap_or_default()
    }
}

impl Drop for ItemCounts {
    fn drop(&mut self) {
        self.gauge.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use taskgate_cache::NamespacedName;

    use super::*;

    fn item(breaker: &str) -> Arc<CachedWorkItem> {
        let item = json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": {},
            "spec": {"key": "i", "item": "i"}, "status": {"breaker": breaker},
        });
        Arc::new(CachedWorkItem::compact(&serde_json::from_value(item).unwrap()).unwrap())
    }

    #[test]
    fn items_are_counted_by_the_leader_only_while_it_leads() {
        let mut registry = Registry::default();
        let metrics = BreakerMetrics::register(&mut registry, "taskgate");
        let value = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let line = text.lines().find(|line| line.starts_with("taskgate_open_items{"));
            line.map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
        };
        let counts = metrics.count_items();
        let changed = |old, new| {
            let key = NamespacedName::new("team", "i");
            counts.changed(&ObjectChange { key, old, new });
        };
        changed(None, Some(item("Open")));
        changed(None, Some(item("HalfOpen")));
        changed(None, Some(item("Closed")));
        assert_eq!((counts.of("team"), value().as_deref()), (3, Some("2")));
        changed(Some(item("HalfOpen")), Some(item("Open")));
        changed(Some(item("Open")), None);
        assert_eq!((counts.of("team"), value().as_deref()), (2, Some("1")));
        drop(counts);
        assert_eq!(value(), None);
    }
}
