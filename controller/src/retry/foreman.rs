//! Foreman's Workloads: watched while Foreman is installed, and cached for when the policies change.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::StreamExt as _;
use kube::{
    Api,
    api::DynamicObject,
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use serde_json::{Value, json};
use taskgate_api::{
    foreman::{GROUP, VERSIONS, WORKLOADS},
    metadata::Metadata,
    task_policy::RetriedKind,
};
use tracing::{debug, info};

use super::{RetryReconciler, reads::foreman_resource};
use crate::kubernetes::{
    crd::{served, while_installed},
    json_of,
};

/// Watches Foreman's CRD and its Workloads. Never ends.
pub(super) async fn follow(retry: &RetryReconciler) {
    let absent = || {
        set_version(retry, None);
        info!("Foreman is not installed");
    };
    let present = || async {
        let version = served(&retry.context.client, GROUP, &VERSIONS).await;
        set_version(retry, Some(version));
        info!(version, "watching Foreman's Workloads");
        follow_workloads(retry, version).await;
    };
    while_installed(&retry.context.client, &format!("{WORKLOADS}.{GROUP}"), absent, present).await;
}

fn set_version(retry: &RetryReconciler, version: Option<&'static str>) {
    *retry.foreman.write().unwrap_or_else(PoisonError::into_inner) = version;
    if version.is_none() {
        retry.objects.clear(RetriedKind::Workload);
        retry.workloads.clear();
    }
}

/// Every change of a Workload.
async fn follow_workloads(retry: &RetryReconciler, version: &str) {
    retry.context.ready().await;
    let resource = foreman_resource(version, "Workload", WORKLOADS);
    let api = Api::<DynamicObject>::all_with(retry.context.client.clone(), &resource);
    let watch = watcher(api, watcher::Config::default()).default_backoff().modify(trim);
    let mut events = std::pin::pin!(watch);
    while let Some(event) = events.next().await {
        let (object, deleted) = match &event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => (json_of(object), false),
            Ok(Event::Delete(object)) => (json_of(object), true),
            Ok(Event::Init) => {
                retry.objects.clear(RetriedKind::Workload);
                retry.workloads.clear();
                continue;
            }
            Ok(Event::InitDone) => {
                // Items may wait for an object that was deleted meanwhile.
                retry.enqueue_all();
                continue;
            }
            Err(error) => {
                debug!(%error, "the watch of Workloads is interrupted");
                continue;
            }
        };
        retry.workloads.put(&object, deleted);
        retry.object_changed(RetriedKind::Workload, &object, deleted);
    }
}

/// Evaluates all Workloads under the current policies.
pub(super) fn reconsider_all(retry: &RetryReconciler) {
    for workload in retry.workloads.all() {
        retry.object_changed(RetriedKind::Workload, &workload, false);
    }
}

/// Removes from a Workload what does not decide whether it is reconciled: intent, steps and conditions.
fn trim(object: &mut DynamicObject) {
    object.metadata.managed_fields = None;
    let kept = |pointer: &str| object.data.pointer(pointer).cloned().unwrap_or_default();
    object.data = json!({
        "spec": {"repo": kept("/spec/repo"), "issues": kept("/spec/issues")},
        "status": {"phase": kept("/status/phase")},
    });
}

/// The cached Workloads, by UID.
#[derive(Debug, Default)]
pub(super) struct Workloads(RwLock<HashMap<String, Arc<Value>>>);

impl Workloads {
    pub(super) fn put(&self, workload: &Value, deleted: bool) {
        let Some(uid) = Metadata::of(workload).uid() else {
            return;
        };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if deleted {
            known.remove(uid);
        } else {
            known.insert(uid.to_owned(), Arc::new(workload.clone()));
        }
    }

    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn all(&self) -> Vec<Arc<Value>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.values().cloned().collect()
    }
}
