//! What policies want cancelled: asked for as anybody else does, by annotations on the Task.

use std::sync::Arc;

use jiff::Timestamp;
use kube::runtime::events::EventType;
use serde_json::{Map, Value, json};
use taskgate_api::{Mode, kelos::Task, keys};
use taskgate_policy::{
    CancelIntent, CancelIntentContext, CancelState, Cancellation, DesiredCancellation, PolicyScope, SourceObservation,
    TaskState, cancel_annotations, desired_cancellation, is_rediscovered, source::SourceKey,
};
use tokio::sync::broadcast::error::RecvError;

use super::tell;
use crate::{
    context::Context,
    error::Error,
    hold,
    source::Observation,
    task::{Outcome, Subject},
};

/// What came of looking at the policy.
pub(super) enum Considered {
    /// Nothing is wanted.
    Nothing,
    /// Nothing until this moment.
    LookAt(Timestamp),
    /// Something was written.
    Taken(Outcome),
}

/// Asks for the cancellation of the Task if its policy wants it, and takes that back when its reason is gone.
pub(super) async fn consider(
    context: &Context,
    subject: &Subject,
    cancellation: &Cancellation,
) -> Result<Considered, Error> {
    if subject.state.deleting.is_some() || subject.state.is_terminal() {
        return Ok(Considered::Nothing);
    }
    let seen = observation(context, &subject.state);
    if let Some(stamp) = cancellation.stamp.as_ref().filter(|_| cancellation.reason.is_some()) {
        let undecided = matches!(cancellation.progress, None | Some(CancelState::Announced));
        if undecided && is_rediscovered(stamp.trigger, seen.as_ref().map(sighting)) {
            // The rest is taken back as when a person does this.
            let change = json!({"annotations": {keys::CANCEL: null}});
            return Ok(Considered::Taken(hold::patch(context, subject, change).await?));
        }
    }
    if !cancellation.is_none() {
        return Ok(Considered::Nothing);
    }
    judge(context, subject, seen.as_ref()).await
}

async fn judge(context: &Context, subject: &Subject, seen: Option<&Observation>) -> Result<Considered, Error> {
    let task = Task::of(&subject.object);
    let policies = context.policies.current();
    let labels = context.policies.namespace_labels(&subject.namespace);
    let name = task.spawner().unwrap_or_default();
    let spawner = context.policies.spawner(&subject.namespace, name);
    let scope = PolicyScope::new(&policies, &subject.namespace, &labels, spawner.as_ref());
    let rule = scope.cancellation(&subject.object);
    let Some((policy, mode, rule)) = rule else {
        return Ok(Considered::Nothing);
    };
    let newer = context.siblings.newer(&subject.state.uid);
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
        DesiredCancellation::Keep => Ok(Considered::Nothing),
        DesiredCancellation::RequeueAt(moment) => Ok(Considered::LookAt(moment)),
        DesiredCancellation::Baseline(_) if mode != Mode::Enforce => Ok(Considered::Nothing),
        DesiredCancellation::Baseline(head) => {
            let change = json!({"annotations": {keys::SOURCE_HEAD: head}});
            Ok(Considered::Taken(hold::patch(context, subject, change).await?))
        }
        DesiredCancellation::Cancel(wish) if mode == Mode::Enforce => ask(context, subject, &wish, name, now).await,
        DesiredCancellation::Cancel(wish) => {
            let note = format!("{policy} would cancel this Task: {}", wish.reason);
            tell::once(context, subject, EventType::Normal, "WouldCancel", &note).await;
            Ok(Considered::Nothing)
        }
    }
}

async fn ask(
    context: &Context,
    subject: &Subject,
    wish: &CancelIntent,
    spawner: &str,
    now: Timestamp,
) -> Result<Considered, Error> {
    let stamp = wish.stamp(spawner, now);
    let annotations: Map<String, Value> = cancel_annotations(&wish.reason, &stamp)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    let outcome = hold::patch(context, subject, json!({"annotations": annotations})).await?;
    Ok(Considered::Taken(outcome))
}

/// Whether the item of a Task is wanted again whose disappearance had it cancelled: then it makes room for the next one.
pub(crate) fn is_wanted_again(context: &Context, object: &Value, state: &TaskState) -> bool {
    let cancellation = Cancellation::of(object);
    let trigger = cancellation.stamp.as_ref().map(|stamp| stamp.trigger);
    let seen = observation(context, state);
    cancellation.is_concluded() && trigger.is_some_and(|trigger| is_rediscovered(trigger, seen.as_ref().map(sighting)))
}

/// Looks at the Tasks of an item whenever its tracker has told something.
pub(crate) async fn follow_sources(context: &Arc<Context>, look_at: impl Fn(&str, &str)) {
    let mut news = context.sources.subscribe();
    loop {
        match news.recv().await {
            Ok(key) => context
                .siblings
                .of_source(&key)
                .iter()
                .for_each(|task| look_at(&key.namespace, task)),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn observation(context: &Context, state: &TaskState) -> Option<Observation> {
    let key: SourceKey = context.siblings.source(&state.uid)?;
    context.sources.latest(&key)
}

fn sighting(seen: &Observation) -> SourceObservation<'_> {
    SourceObservation {
        item: seen.item.as_deref(),
        discovered: seen.discovered,
        in_a_row: seen.in_a_row,
    }
}

/// Where the spawner's items come from, null when it is not known; and whether it is suspended.
fn source(context: &Context, namespace: &str, name: &str) -> (Value, bool) {
    let spawners = &context.policies.spawners;
    let found = spawners.find(|spawner| {
        spawner.metadata.name.as_deref() == Some(name) && spawner.metadata.namespace.as_deref() == Some(namespace)
    });
    let field = |pointer: &str| found.as_ref()?.data.pointer(pointer);
    (
        field("/spec/when").cloned().unwrap_or_default(),
        field("/spec/suspend").and_then(Value::as_bool) == Some(true),
    )
}
