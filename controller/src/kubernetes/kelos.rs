//! Whether Kelos is installed.

use std::time::Duration;

use kube::{Client, api::ApiResource};
use taskgate_api::kelos;
use taskgate_cache::kelos_resource;
use tokio::time::sleep;
use tracing::debug;

/// Until the API server is asked again after an error.
const RETRY: Duration = Duration::from_secs(3);
/// Between two checks whether Kelos is installed by now.
const ABSENT_RETRY: Duration = Duration::from_secs(15);

/// Kelos' Task in `version`.
pub(crate) fn task_resource(version: &str) -> ApiResource {
    kelos_resource(version, "Task", kelos::TASKS)
}

/// The version of Kelos' Tasks that the cluster serves; `None` when Kelos is not installed.
pub(crate) async fn served_version(client: &Client) -> Option<&'static str> {
    loop {
        match taskgate_cache::served_version(client, kelos::GROUP, &kelos::TASK_VERSIONS).await {
            Ok(version) => return version,
            Err(error) => debug!(%error, "the API server does not answer whether Kelos is installed"),
        }
        sleep(RETRY).await;
    }
}

/// Waits until Kelos is installed; the version of its Tasks that the cluster serves.
pub(crate) async fn wait_until_installed(client: &Client) -> &'static str {
    loop {
        if let Some(version) = served_version(client).await {
            return version;
        }
        sleep(ABSENT_RETRY).await;
    }
}
