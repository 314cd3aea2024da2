//! Counters under Kelos' names (kelos §6.11), and the stand-in's own.

use crate::cache::Key;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Labels of a Job that was created.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Created {
    pub(crate) namespace: String,
    pub(crate) r#type: String,
}

/// Labels of a Task that became terminal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Completed {
    pub(crate) namespace: String,
    pub(crate) r#type: String,
    pub(crate) phase: String,
}

/// Labels of what an agent has used up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Used {
    pub(crate) namespace: String,
    pub(crate) r#type: String,
    pub(crate) spawner: String,
    pub(crate) model: String,
}

/// Labels of a reconcile error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Errors {
    pub(crate) controller: &'static str,
}

/// How a spawner's cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum CycleResult {
    /// Without an error.
    Success,
    /// With one: the spawner is in backoff now.
    Failure,
    /// As `Failure` to Kelos, but nothing was wrong: a Task was deleted between two reads of it (kelos S5), which any
    /// client that deletes one may cause, Kelos itself included.
    Missed,
    /// The spawner is suspended; nothing was discovered.
    Suspended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cycle {
    namespace: String,
    spawner: String,
    result: CycleResult,
}

/// All counters of one stand-in.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    cycles: Family<Cycle, Counter>,
    pub(crate) created: Family<Created, Counter>,
    pub(crate) completed: Family<Completed, Counter>,
    pub(crate) duration: Family<Completed, Histogram>,
    pub(crate) errors: Family<Errors, Counter>,
    pub(crate) cost: Family<Used, Counter<f64, AtomicU64>>,
    pub(crate) input_tokens: Family<Used, Counter>,
    pub(crate) output_tokens: Family<Used, Counter>,
    pub(crate) discovery: Counter,
    pub(crate) discovery_errors: Counter,
    pub(crate) items: Counter,
    pub(crate) tasks: Counter,
    pub(crate) discovery_duration: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.01, 4.0, 10));
        let mut metrics = Self {
            registry: Arc::default(),
            cycles: Family::default(),
            created: Family::default(),
            completed: Family::default(),
            duration: Family::new_with_constructor(histogram),
            errors: Family::default(),
            cost: Family::default(),
            input_tokens: Family::default(),
            output_tokens: Family::default(),
            discovery: Counter::default(),
            discovery_errors: Counter::default(),
            items: Counter::default(),
            tasks: Counter::default(),
            discovery_duration: histogram(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }
}

impl Metrics {
    fn register(&self) -> Registry {
        let mut registry = Registry::default();
        let kelos = registry.sub_registry_with_prefix("kelos");
        kelos.register("task_created", "Jobs created", self.created.clone());
        kelos.register("task_completed", "Tasks finished", self.completed.clone());
        kelos.register("task_duration_seconds", "From start to end", self.duration.clone());
        kelos.register("reconcile_errors", "Failed reconciles", self.errors.clone());
        kelos.register("task_cost_usd", "Cost of agents", self.cost.clone());
        kelos.register("task_input_tokens", "Tokens read", self.input_tokens.clone());
        kelos.register("task_output_tokens", "Tokens written", self.output_tokens.clone());
        kelos.register("spawner_discovery", "Successful cycles", self.discovery.clone());
        kelos.register(
            "spawner_discovery_errors",
            "Failed cycles",
            self.discovery_errors.clone(),
        );
        kelos.register("spawner_items_discovered", "Items found", self.items.clone());
        kelos.register("spawner_tasks_created", "Tasks created", self.tasks.clone());
        kelos.register(
            "spawner_discovery_duration_seconds",
            "Duration of a cycle",
            self.discovery_duration.clone(),
        );
        let own = registry.sub_registry_with_prefix("standin");
        own.register("spawner_cycles", "Cycles of each spawner", self.cycles.clone());
        registry
    }

    fn cycle(spawner: &Key, result: CycleResult) -> Cycle {
        Cycle {
            namespace: spawner.namespace.clone(),
            spawner: spawner.name.clone(),
            result,
        }
    }

    pub(crate) fn count_cycle(&self, spawner: &Key, result: CycleResult) {
        let cycle = Self::cycle(spawner, result);
        self.cycles.get_or_create(&cycle).inc();
    }

    /// How many cycles of a spawner ended so.
    pub fn cycles(&self, spawner: &Key, result: CycleResult) -> u64 {
        let cycle = Self::cycle(spawner, result);
        self.cycles.get(&cycle).map_or(0, |counter| counter.get())
    }

    /// Tasks created by polling spawners since the start.
    pub fn tasks_created(&self) -> u64 {
        self.tasks.get()
    }

    /// The text for a scraper.
    ///
    /// # Errors
    /// None in practice: the writer is a string.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}
