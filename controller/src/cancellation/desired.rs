//! Which Tasks policies want cancelled. The request is the same as a user's: annotations on the Task.

use jiff::Timestamp;
use kube::runtime::events::EventType;
use serde_json::{Map, Value, json};
use taskgate_api::{Mode, kelos::Task, keys};
use taskgate_policy::{
    CancelIntentContext, CancelState, Cancellation, DesiredCancellation, SourceObservation, TaskState,
    cancel_annotations, desired_cancellation, is_rediscovered, source::SourceKey,
};

use super::{CancellationReconciler, record_once};
use crate::{
    error::Error,
    source::Observation,
    task::{self, Subject, TaskResult},
};

/// Requests the cancellation of the Task if its policy wants it, and withdraws the request when its reason is gone. `None`: the
/// policy does not want the Task cancelled.
pub(super) async fn reconcile(
    reconciler: &CancellationReconciler,
    subject: &Subject,
    cancellation: &Cancellation,
) -> Result<Option<TaskResult>, Error> {
    if subject.state.deleting.is_some() || subject.state.is_terminal() {
        return Ok(None);
    }
    let seen = observation(reconciler, &subject.state);
    if let Some(stamp) = cancellation.stamp.as_ref().filter(|_| cancellation.reason.is_some()) {
        let undecided = matches!(cancellation.progress, None | Some(CancelState::Announced));
        if undecided && is_rediscovered(stamp.trigger, seen.as_ref().map(sighting)) {
            // The rest is withdrawn as when a user removes the annotation.
            let change = json!({"annotations": {keys::CANCEL: null}});
            return task::patch(&reconciler.context, subject, change).await.map(Some);
        }
    }
    if !cancellation.is_none() {
        return Ok(None);
    }
    evaluate(reconciler, subject, seen.as_ref()).await
}

async fn evaluate(
    reconciler: &CancellationReconciler,
    subject: &Subject,
    seen: Option<&Observation>,
) -> Result<Option<TaskResult>, Error> {
    let context = &*reconciler.context;
    let now = Timestamp::now();
    let spawner = Task::of(&subject.object).spawner().unwrap_or_default();
    let desired = context.in_scope(&subject.namespace, Some(spawner), |policies| {
        let (policy, mode, rule) = policies.cancellation(&subject.object)?;
        let spawner = context.cache.spawners().get(&subject.namespace, spawner);
        let field = |pointer: &str| spawner.as_ref()?.object.data.pointer(pointer);
        let newer = reconciler.siblings.newer(&subject.state.uid);
        let inputs = CancelIntentContext {
            rule,
            object: &subject.object,
            when: field("/spec/when").unwrap_or(&Value::Null),
            suspended: field("/spec/suspend").and_then(Value::as_bool) == Some(true),
            observation: seen.map(sighting),
            newer: newer.as_deref(),
            now,
        };
        Some((policy.to_string(), mode, desired_cancellation(&inputs)))
    });
    let Some((policy, mode, desired)) = desired else {
        return Ok(None);
    };
    match desired {
        DesiredCancellation::Keep => Ok(None),
        DesiredCancellation::RequeueAt(moment) => Ok(Some(TaskResult::RequeueAt(moment))),
        DesiredCancellation::Baseline(_) if mode != Mode::Enforce => Ok(None),
        DesiredCancellation::Baseline(head) => {
            let change = json!({"annotations": {keys::SOURCE_HEAD: head}});
            task::patch(context, subject, change).await.map(Some)
        }
        DesiredCancellation::Cancel(intent) if mode == Mode::Enforce => {
            let annotations = cancel_annotations(&intent.reason, &intent.stamp(spawner, now));
            let annotations = annotations
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.into()));
            let change = json!({"annotations": annotations.collect::<Map<String, Value>>()});
            task::patch(context, subject, change).await.map(Some)
        }
        DesiredCancellation::Cancel(intent) => {
            let note = format!("{policy} would cancel this Task: {}", intent.reason);
            record_once(context, subject, EventType::Normal, "WouldCancel", &note).await;
            Ok(None)
        }
    }
}

/// Whether the source shows the item again whose disappearance had the Task cancelled: then the Task must be replaced.
pub(super) fn is_wanted_again(reconciler: &CancellationReconciler, object: &Value, state: &TaskState) -> bool {
    let cancellation = Cancellation::of(object);
    let trigger = cancellation.stamp.as_ref().map(|stamp| stamp.trigger);
    let seen = observation(reconciler, state);
    cancellation.is_concluded() && trigger.is_some_and(|trigger| is_rediscovered(trigger, seen.as_ref().map(sighting)))
}

/// Enqueues the Tasks of an item whenever its source was read.
pub(crate) async fn follow_sources(reconciler: &CancellationReconciler, enqueue: impl Fn(&str, &str)) {
    let enqueue_tasks = |key: Option<&SourceKey>| {
        if let Some(key) = key {
            let tasks = reconciler.siblings.of_source(key);
            tasks.iter().for_each(|task| enqueue(&key.namespace, task));
        }
    };
    reconciler.sources.follow(enqueue_tasks).await;
}

fn observation(reconciler: &CancellationReconciler, state: &TaskState) -> Option<Observation> {
    let key: SourceKey = reconciler.siblings.source(&state.uid)?;
    reconciler.sources.latest(&key)
}

fn sighting(seen: &Observation) -> SourceObservation<'_> {
    SourceObservation {
        item: seen.item.as_deref(),
        discovered: seen.discovered,
        in_a_row: seen.in_a_row,
    }
}
