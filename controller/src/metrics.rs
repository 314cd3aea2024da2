//! How a feature registers its metrics. Each feature owns them; `controller::Metrics` puts them together.

use prometheus_client::registry::{Metric, Registry};

/// `N` labels of a metric: their names and values.
pub(crate) type Labels<const N: usize, V = &'static str> = [(&'static str, V); N];

/// Creates a metric, and puts it into `registry`.
pub(crate) fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}
