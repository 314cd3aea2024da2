//! The controller's configuration.

use std::sync::Arc;

use taskgate_api::task_policy::RetriedKind;
use taskgate_cache::ClusterCache;

use crate::source::SourceConfig;

/// How the controller runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Taskgate's own namespace, where the Lease is.
    pub namespace: String,
    /// The name of the Lease. `None`: this is the only replica, which always leads and writes nothing while idle.
    pub lease: Option<String>,
    /// The identity of this replica: different for each, such as the pod's name.
    pub identity: String,
    /// The name of taskgate's webhook configurations.
    pub configuration: String,
    /// How many `WorkItem`s a namespace may have.
    pub work_items_per_namespace: usize,
    /// How issue sources are read.
    pub sources: SourceConfig,
    /// Whether Foreman's Workloads are retried.
    pub foreman: bool,
    /// Whether Tasks are retried.
    pub task_retry: bool,
    /// The cluster cache of the process.
    pub cache: Arc<ClusterCache>,
}

impl Config {
    /// The kinds that are retried.
    pub(crate) fn retried_kinds(&self) -> Vec<RetriedKind> {
        let kinds = [
            (RetriedKind::Workload, self.foreman),
            (RetriedKind::Task, self.task_retry),
        ];
        kinds
            .into_iter()
            .filter_map(|(kind, enabled)| enabled.then_some(kind))
            .collect()
    }
}
