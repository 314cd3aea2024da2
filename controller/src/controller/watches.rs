//! The watches, and what each change leads to: stores and indexes are filled, and Tasks, items and spawners are enqueued.

use std::future::ready;

use futures::{Stream, StreamExt as _, channel::mpsc, stream::BoxStream};
use kube::{
    Api, Resource, ResourceExt as _,
    api::DynamicObject,
    runtime::{
        WatchStreamExt as _,
        controller::ReconcileRequest,
        reflector::{self, ObjectRef},
        watcher,
        watcher::Event,
    },
};
use serde_json::json;
use taskgate_api::{WorkItem, task_policy::RetriedKind, work_item::Attempt};
use taskgate_policy::TaskState;
use tokio::sync::mpsc as tokio_mpsc;
use tracing::debug;

use super::Reconcilers;
use crate::{
    breaker::spawner_status::SpawnerRef,
    kubernetes::{json_of, kelos::trim_task},
};

/// The work queue of Tasks. Sending fails only when the controller is dropped.
pub(crate) type Queue = mpsc::UnboundedSender<ReconcileRequest<DynamicObject>>;
pub(crate) type Enqueued = mpsc::UnboundedReceiver<ReconcileRequest<DynamicObject>>;

/// Fills a store from a watch; yields at each change once the first list is complete.
pub(crate) fn cached<K>(
    watch: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    writer: reflector::store::Writer<K>,
) -> BoxStream<'static, ()>
where
    K: Resource + Clone + Send + Sync + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone + Send + Sync,
{
    reflector::reflector(writer, watch.default_backoff())
        .filter_map(|event| ready(changes(event)))
        .boxed()
}

fn changes<K>(event: watcher::Result<Event<K>>) -> Option<()> {
    match event {
        Ok(Event::Init | Event::InitApply(_)) => None,
        Ok(_) => Some(()),
        Err(error) => {
            debug!(%error, "a watch is interrupted");
            None
        }
    }
}

/// Keeps of a spawner its metadata, where its items come from, and whether it is suspended.
pub(crate) fn trim_spawner(event: Event<DynamicObject>) -> Event<DynamicObject> {
    let strip = |mut object: DynamicObject| {
        object.metadata.managed_fields = None;
        let kept = |pointer: &str| object.data.pointer(pointer).cloned().unwrap_or_default();
        object.data = json!({"spec": {
            "suspend": kept("/spec/suspend"),
            "when": kept("/spec/when"),
            "taskTemplate": {
                "workspaceRef": kept("/spec/taskTemplate/workspaceRef"),
                "worker": {"workspaceRef": kept("/spec/taskTemplate/worker/workspaceRef")},
            },
        }});
        object
    };
    match event {
        Event::Apply(object) => Event::Apply(strip(object)),
        Event::InitApply(object) => Event::InitApply(strip(object)),
        other => other,
    }
}

/// Keeps of a `WorkItem` what the next step, the limit and the spawner's condition depend on: there may be very many. A reconcile
/// that writes one reads it whole.
fn trim_work_item(item: &mut WorkItem) {
    item.metadata.managed_fields = None;
    let Some(status) = &mut item.status else { return };
    status.conditions = Vec::new();
    // The copy of an object that is being replaced is as large as the object.
    if let Some(transition) = status.retry.as_mut().and_then(|retry| retry.transition.as_mut()) {
        transition.predecessor = None;
        transition.feedback = None;
        transition.children = Vec::new();
    }
    for attempt in &mut status.attempts {
        *attempt = Attempt {
            uid: std::mem::take(&mut attempt.uid),
            name: String::new(),
            outcome: attempt.outcome,
            opened: attempt.opened,
            reason: None,
            cancelled_by: None,
            start_time: None,
            completion_time: attempt.completion_time.take(),
            cost_usd: attempt.cost_usd.take(),
            input_tokens: attempt.input_tokens,
            output_tokens: attempt.output_tokens,
        };
    }
}

/// Watches `WorkItem`s: a change concerns the item's Tasks, its retries and its spawner.
pub(crate) async fn follow_work_items(
    reconcilers: &Reconcilers,
    writer: reflector::store::Writer<WorkItem>,
    queue: &Queue,
    changed: &tokio_mpsc::UnboundedSender<SpawnerRef>,
) {
    let context = &*reconcilers.context;
    let watch = watcher(Api::<WorkItem>::all(context.client.clone()), watcher::Config::default());
    let watch = watch.default_backoff().modify(trim_work_item);
    let mut tripped = reconcilers.breaker.tripped_items();
    reflector::reflector(writer, watch)
        .for_each(|event| {
            let (item, deleted) = match event {
                Ok(Event::Apply(item) | Event::InitApply(item)) => (item, false),
                Ok(Event::Delete(item)) => (item, true),
                Ok(Event::Init) => {
                    tripped.clear();
                    return ready(());
                }
                Ok(Event::InitDone) => return ready(()),
                Err(error) => {
                    debug!(%error, "the watch of WorkItems is interrupted");
                    return ready(());
                }
            };
            let namespace = item.namespace().unwrap_or_default();
            for task in context.task_index.of(&(namespace.clone(), item.name_any())) {
                let task = ObjectRef::new_with(&task.name, context.task_kind.clone()).within(&namespace);
                let _ = queue.unbounded_send(task.into());
            }
            reconcilers.sources.refresh();
            reconcilers.retry.work_item_changed(&item, deleted);
            tripped.put(&item, deleted);
            if let Some(spawner) = item.spec.spawner {
                let _ = changed.send((namespace, spawner));
            }
            ready(())
        })
        .await;
}

/// Watches Tasks, and keeps their indexes.
pub(crate) async fn follow_tasks(
    reconcilers: &Reconcilers,
    writer: reflector::store::Writer<DynamicObject>,
    queue: &Queue,
) {
    let (context, siblings) = (&*reconcilers.context, &reconcilers.cancellation.siblings);
    let api = Api::<DynamicObject>::all_with(context.client.clone(), &context.task_kind);
    let watch = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(trim_task);
    reflector::reflector(writer, watch)
        .for_each(|event| {
            let (object, deleted) = match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => (object, false),
                Ok(Event::Delete(object)) => (object, true),
                Ok(Event::Init) => {
                    context.task_index.clear();
                    siblings.clear();
                    reconcilers.retry.clear_tasks();
                    return ready(());
                }
                Ok(Event::InitDone) => return ready(()),
                Err(error) => {
                    debug!(%error, "the watch of Tasks is interrupted");
                    return ready(());
                }
            };
            let namespace = object.namespace().unwrap_or_default();
            let json = json_of(&object);
            match TaskState::of(&json) {
                Some(state) if deleted => {
                    siblings.remove(&state.uid);
                    context.task_index.remove(&namespace, &state);
                }
                Some(state) => {
                    // A newer Task of an item may end the older ones.
                    for older in siblings.put(&namespace, &json, &state) {
                        let older = ObjectRef::new_with(&older, context.task_kind.clone()).within(&namespace);
                        let _ = queue.unbounded_send(older.into());
                    }
                    context.task_index.put(&namespace, state);
                }
                None => {}
            }
            reconcilers.sources.refresh();
            reconcilers.retry.object_changed(RetriedKind::Task, &json, deleted);
            let task = ObjectRef::from_obj_with(&object, context.task_kind.clone());
            let _ = queue.unbounded_send(task.into());
            ready(())
        })
        .await;
}
