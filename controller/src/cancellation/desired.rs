//! Which Tasks policies want cancelled. The request is the same as a user's: annotations on the Task.

use jiff::Timestamp;
use kube::runtime::events::EventType;
use serde_json::{Map, Value, json};
use taskgate_api::{Mode, kelos::Task, keys};
use taskgate_policy::{
    CancelIntent, CancelIntentContext, CancelState, Cancellation, DesiredCancellation, PolicyScope, SourceObservation,
    TaskState, cancel_annotations, desired_cancellation, is_rediscovered, source::SourceKey,
};
use tokio::sync::broadcast::error::RecvError;

use super::{CancellationReconciler, events};
use crate::{
    context::Context,
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
    let task = Task::of(&subject.object);
    let policies = context.policies();
    let labels = context.namespace_labels(&subject.namespace);
    let name = task.spawner().unwrap_or_default();
    let spawner = context.spawner(&subject.namespace, name);
    let rule =
        PolicyScope::new(&policies, &subject.namespace, &labels, spawner.as_deref()).cancellation(&subject.object);
    let Some((policy, mode, rule)) = rule else {
        return Ok(None);
    };
    let newer = reconciler.siblings.newer(&subject.state.uid);
    let now = Timestamp::now();
    let (when, suspended) = source(context, &subject.namespace, name);
    let verdict = desired_cancellation(&CancelIntentContext {
        rule,
        object: &subject.object,
        when: &when,
        suspended,
        observation: seen.map(sighting),
        newer: newer.as_deref(),
        now,
    });
    match verdict {
        DesiredCancellation::Keep => Ok(None),
        DesiredCancellation::RequeueAt(moment) => Ok(Some(TaskResult::RequeueAt(moment))),
        DesiredCancellation::Baseline(_) if mode != Mode::Enforce => Ok(None),
        DesiredCancellation::Baseline(head) => {
            let change = json!({"annotations": {keys::SOURCE_HEAD: head}});
            task::patch(context, subject, change).await.map(Some)
        }
        DesiredCancellation::Cancel(intent) if mode == Mode::Enforce => {
            request(context, subject, &intent, name, now).await.map(Some)
        }
        DesiredCancellation::Cancel(intent) => {
            let note = format!("{policy} would cancel this Task: {}", intent.reason);
            events::record_once(context, subject, EventType::Normal, "WouldCancel", &note).await;
            Ok(None)
        }
    }
}

async fn request(
    context: &Context,
    subject: &Subject,
    intent: &CancelIntent,
    spawner: &str,
    now: Timestamp,
) -> Result<TaskResult, Error> {
    let stamp = intent.stamp(spawner, now);
    let annotations: Map<String, Value> = cancel_annotations(&intent.reason, &stamp)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    task::patch(context, subject, json!({"annotations": annotations})).await
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
    let mut news = reconciler.sources.subscribe();
    loop {
        match news.recv().await {
            Ok(key) => reconciler
                .siblings
                .of_source(&key)
                .iter()
                .for_each(|task| enqueue(&key.namespace, task)),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
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

/// The `when` of the spawner, null when the cache does not have it; and whether the spawner is suspended.
fn source(context: &Context, namespace: &str, name: &str) -> (Value, bool) {
    let found = context.cache.spawners().get(namespace, name);
    let field = |pointer: &str| found.as_ref()?.object.data.pointer(pointer);
    (
        field("/spec/when").cloned().unwrap_or_default(),
        field("/spec/suspend").and_then(Value::as_bool) == Some(true),
    )
}
