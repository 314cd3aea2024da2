//! What the controller does while taskgate is disabled: it lets go of Tasks that are being deleted, so that nothing is stuck
//! because of it, and nothing else.

use std::time::Duration;

use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use taskgate_api::keys;
use tokio::{sync::Semaphore, time::sleep};
use tracing::{debug, info, warn};

use crate::{
    error::{is_absent, is_conflict},
    lead::kelos_comes,
    tasks::resource,
};

/// How many Tasks are let go at the same time.
const CONCURRENCY: usize = 16;
/// Until a failed try is repeated.
const RETRY: Duration = Duration::from_secs(3);

/// Lets go of whatever is being deleted. Never ends.
///
/// RBAC: `list`, `watch`, `patch` on tasks.
pub(crate) async fn run(client: &Client) {
    info!("resting: only Tasks that are being deleted are let go");
    let kind = resource(kelos_comes(client).await);
    let all = Api::<PartialObjectMeta<DynamicObject>>::all_with(client.clone(), &kind);
    let places = Semaphore::new(CONCURRENCY);
    watcher(all, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .for_each_concurrent(None, |event| {
            let (kind, places) = (&kind, &places);
            async move {
                let task = match event {
                    Ok(task) => task,
                    Err(error) => return debug!(%error, "the watch of Tasks is interrupted"),
                };
                let namespace = task.namespace().unwrap_or_default();
                let tasks = Api::namespaced_with(client.clone(), &namespace, kind);
                if is_held(&task) {
                    release(&tasks, &task, places).await;
                }
            }
        })
        .await;
}

fn is_held(task: &PartialObjectMeta<DynamicObject>) -> bool {
    let ours = |finalizer: &String| finalizer == keys::ACCOUNTING;
    task.metadata.deletion_timestamp.is_some() && task.finalizers().iter().any(ours)
}

/// Tries until the Task is let go, is gone, or changed. Whoever waits for the next try holds none of the `places`.
async fn release(tasks: &Api<DynamicObject>, task: &PartialObjectMeta<DynamicObject>, places: &Semaphore) {
    let mut finalizers = task.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != keys::ACCOUNTING);
    let patch = json!({"metadata": {
        "finalizers": finalizers, "uid": task.uid(), "resourceVersion": task.resource_version(),
    }});
    loop {
        // Nobody closes it.
        let place = places.acquire().await;
        let patched = tasks
            .patch(&task.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        drop(place);
        match patched {
            Ok(_) => return,
            // It is gone, or it changed and comes again.
            Err(error) if is_absent(&error) || is_conflict(&error) => return,
            Err(error) => warn!(%error, name = task.name_any(), "not let go; tried again soon"),
        }
        sleep(RETRY).await;
    }
}
