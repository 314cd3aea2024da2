//! The controller while taskgate is disabled: it removes its finalizer from Tasks that are being deleted, so that no deletion waits for
//! it, and does nothing else.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::keys;
use taskgate_cache::ClusterCache;
use tokio::{sync::Semaphore, time::sleep};
use tracing::{info, warn};

use crate::kubernetes::{
    kelos::{task_resource, wait_until_installed},
    settled,
};

/// How many finalizers are removed in parallel.
const CONCURRENCY: usize = 16;
/// Until a failed request is sent again.
const RETRY: Duration = Duration::from_secs(3);

/// Removes the finalizer from every Task that is being deleted. Never ends.
///
/// RBAC: `patch` on tasks.
pub(crate) async fn run(client: &Client, cache: &ClusterCache) {
    info!("disabled: only the finalizers of Tasks that are being deleted are removed");
    let kind = task_resource(wait_until_installed(client).await);
    let permits = Semaphore::new(CONCURRENCY);
    let tasks = cache.tasks().subscribe();
    let changes = stream::unfold(tasks, |mut tasks| async move { Some((tasks.next().await?, tasks)) });
    changes
        .flat_map(stream::iter)
        .for_each_concurrent(None, |change| {
            let (kind, permits) = (&kind, &permits);
            async move {
                if let Some(task) = change.new.filter(|task| waits_for_finalizer(task)) {
                    let tasks = Api::namespaced_with(client.clone(), &change.key.namespace, kind);
                    remove_finalizer(&tasks, &task, permits).await;
                }
            }
        })
        .await;
}

fn waits_for_finalizer(task: &DynamicObject) -> bool {
    let ours = |finalizer: &String| finalizer == keys::ACCOUNTING;
    task.metadata.deletion_timestamp.is_some() && task.finalizers().iter().any(ours)
}

/// Tries until the finalizer is removed, or the Task is gone or changed. No permit is held between two tries.
async fn remove_finalizer(tasks: &Api<DynamicObject>, task: &DynamicObject, permits: &Semaphore) {
    let mut finalizers = task.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != keys::ACCOUNTING);
    let patch = json!({"metadata": {
        "finalizers": finalizers, "uid": task.uid(), "resourceVersion": task.resource_version(),
    }});
    loop {
        // The semaphore is never closed.
        let permit = permits.acquire().await;
        let patched = tasks
            .patch(&task.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        drop(permit);
        match settled(patched) {
            Ok(_) => return,
            Err(error) => warn!(%error, name = task.name_any(), "a finalizer was not removed; tried again soon"),
        }
        sleep(RETRY).await;
    }
}
