//! Foreman's Workloads as they are seen: picked up when Foreman is installed, let go of when it goes.

use futures::StreamExt as _;
use kube::{
    Api,
    api::DynamicObject,
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use serde_json::json;
use std::sync::PoisonError;
use taskgate_api::{
    foreman::{GROUP, VERSIONS, WORKLOADS},
    task_policy::RetriedKind,
};
use tracing::{debug, info};

use super::{look::foreman_resource, note};
use crate::{
    context::Context,
    crd::{served, while_installed},
    tasks::json_of,
};

/// Follows Foreman for ever.
pub(super) async fn follow(context: &Context) {
    let absent = || {
        enter(context, None);
        info!("Foreman is not installed");
    };
    let present = || async {
        let version = served(&context.client, GROUP, &VERSIONS).await;
        enter(context, Some(version));
        info!(version, "following Foreman");
        follow_workloads(context, version).await;
    };
    while_installed(&context.client, &format!("{WORKLOADS}.{GROUP}"), absent, present).await;
}

fn enter(context: &Context, version: Option<&'static str>) {
    *context.retry.foreman.write().unwrap_or_else(PoisonError::into_inner) = version;
    if version.is_none() {
        context.retry.objects.clear(RetriedKind::Workload);
        context.retry.workloads.clear();
    }
}

/// Every change of a Workload.
async fn follow_workloads(context: &Context, version: &str) {
    context.ready().await;
    let resource = foreman_resource(version, "Workload", WORKLOADS);
    let api = Api::<DynamicObject>::all_with(context.client.clone(), &resource);
    let watch = watcher(api, watcher::Config::default()).default_backoff().modify(trim);
    let mut events = std::pin::pin!(watch);
    while let Some(event) = events.next().await {
        let (object, gone) = match &event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => (json_of(object), false),
            Ok(Event::Delete(object)) => (json_of(object), true),
            Ok(Event::Init) => {
                context.retry.objects.clear(RetriedKind::Workload);
                context.retry.workloads.clear();
                continue;
            }
            Ok(Event::InitDone) => {
                // What went meanwhile is missed by those that waited for it.
                super::wake_all(context);
                continue;
            }
            Err(error) => {
                debug!(%error, "the watch of Workloads is interrupted");
                continue;
            }
        };
        context.retry.workloads.put(&object, gone);
        note(context, RetriedKind::Workload, &object, gone);
    }
}

/// Takes note of all Workloads under the policies of the moment.
pub(super) fn note_all(context: &Context) {
    for workload in context.retry.workloads.all() {
        note(context, RetriedKind::Workload, &workload, false);
    }
}

/// Keeps of a Workload what decides whether it is looked at: no intent, no steps, no conditions.
fn trim(object: &mut DynamicObject) {
    object.metadata.managed_fields = None;
    let kept = |pointer: &str| object.data.pointer(pointer).cloned().unwrap_or_default();
    object.data = json!({
        "spec": {"repo": kept("/spec/repo"), "issues": kept("/spec/issues")},
        "status": {"phase": kept("/status/phase")},
    });
}
