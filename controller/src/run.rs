//! Whenever this replica leads, and Kelos is installed, it runs the controller.

use kube::Client;
use taskgate_api::kueue::ConfigRef;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{lead::lead, leader::Leader, metrics::Metrics, source::SourceConfig};

/// How the controller runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Taskgate's own namespace, where the Lease is.
    pub namespace: String,
    /// The name of the Lease. `None`: there is only this replica, which leads always and writes nothing at rest.
    pub lease: Option<String>,
    /// Who this replica is: different for each, such as the pod's name.
    pub identity: String,
    /// How many `WorkItem`s a namespace may have.
    pub work_items_per_namespace: usize,
    /// How the sources of items are read.
    pub sources: SourceConfig,
    /// Where Kueue's configuration is.
    pub kueue: ConfigRef,
}

/// Runs the controller until `shutdown`: whenever this replica leads, and Kelos is installed.
pub async fn run(client: Client, config: Config, metrics: Metrics, shutdown: CancellationToken) {
    let Some(lease) = &config.lease else {
        metrics.leads(true);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = lead(client, &config, &metrics) => warn!("the controller ended by itself"),
        }
        return;
    };
    let mut leader = Leader::new(client.clone(), &config.namespace, lease, &config.identity);
    while leader.acquire(&shutdown).await {
        metrics.leads(true);
        tokio::select! {
            () = leader.keep(&shutdown) => {}
            () = lead(client.clone(), &config, &metrics) => warn!("the controller ended by itself"),
        }
        metrics.leads(false);
        if shutdown.is_cancelled() {
            leader.release().await;
            return;
        }
    }
}
