//! Which Tasks policies want cancelled. The request is the same as a user's: annotations on the Task.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::runtime::events::EventType;
use serde_json::{Value, json};
use taskgate_api::{Mode, kelos::Task, keys};
use taskgate_policy::{
    CancelIntentContext, CancelState, Cancellation, DesiredCancellation, SourceObservation, Stamp, TaskState,
    cancel_annotations, desired_cancellation, is_rediscovered, source::SourceKey,
};

use super::{CancellationReconciler, TaskCancellation};
use crate::{error::Error, source::Observation, task::TaskResult};

impl TaskCancellation<'_> {
    /// Requests the cancellation of the Task if its policy wants it, and withdraws the request when its reason is gone. `None`: the
    /// policy does not want the Task cancelled.
    pub(super) async fn follow_policy(&self) -> Result<Option<TaskResult>, Error> {
        let (subject, cancellation) = (self.subject, self.cancellation);
        if subject.state.deleting.is_some() || subject.state.is_terminal() {
            return Ok(None);
        }
        let seen = self.reconciler.observation(&subject.state);
        if let Some(stamp) = cancellation.stamp.as_ref().filter(|_| cancellation.reason.is_some()) {
            let undecided = matches!(cancellation.progress, None | Some(CancelState::Announced));
            if undecided && is_rediscovered(stamp.trigger, seen.as_ref().map(sighting)) {
                // The rest is withdrawn as when a user removes the annotation.
                return self.annotate_task(json!({keys::CANCEL: null})).await.map(Some);
            }
        }
        if !cancellation.is_none() {
            return Ok(None);
        }
        let now = self.context.now();
        let spawner = Task::of(&subject.object).spawner().unwrap_or_default();
        let Some((policy, mode, desired)) = self.desired(spawner, seen.as_ref(), now) else {
            return Ok(None);
        };
        match desired {
            DesiredCancellation::Keep => Ok(None),
            DesiredCancellation::RequeueAt(moment) => Ok(Some(TaskResult::RequeueAt(moment))),
            DesiredCancellation::Baseline(_) if mode != Mode::Enforce => Ok(None),
            DesiredCancellation::Baseline(head) => self.annotate_task(json!({keys::SOURCE_HEAD: head})).await.map(Some),
            DesiredCancellation::Cancel(intent) if mode == Mode::Enforce => {
                let annotations = cancel_annotations(&intent.reason, &intent.stamp(spawner, now));
                let annotations: BTreeMap<_, _> = annotations.into_iter().collect();
                self.annotate_task(json!(annotations)).await.map(Some)
            }
            DesiredCancellation::Cancel(intent) => {
                let note = format!("{policy} would cancel this Task: {}", intent.reason);
                self.record_once(EventType::Normal, "WouldCancel", &note).await;
                Ok(None)
            }
        }
    }

    /// What the policy that governs the Task wants, with the policy and its mode.
    fn desired(
        &self,
        spawner: &str,
        seen: Option<&Observation>,
        now: Timestamp,
    ) -> Option<(String, Mode, DesiredCancellation)> {
        let Self { context, subject, .. } = *self;
        let newer = self.reconciler.siblings.newer(&subject.state.uid);
        context.in_scope(&subject.namespace, Some(spawner), |policies| {
            let (policy, mode, rule) = policies.cancellation(&subject.object)?;
            let spawner = context.cache.spawners().get(&subject.namespace, spawner);
            let field = |pointer: &str| spawner.as_ref()?.object.data.pointer(pointer);
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
        })
    }
}

impl CancellationReconciler {
    /// Whether the source shows the item again whose disappearance had the Task cancelled: then the Task must be replaced.
    pub(crate) fn is_wanted_again(&self, object: &Value, state: &TaskState) -> bool {
        let cancellation = Cancellation::of(object);
        let seen = self.observation(state);
        let found_again = |stamp: &Stamp| is_rediscovered(stamp.trigger, seen.as_ref().map(sighting));
        cancellation.is_concluded() && cancellation.stamp.as_ref().is_some_and(found_again)
    }

    /// The item of the Task as its issue source showed it last.
    fn observation(&self, state: &TaskState) -> Option<Observation> {
        self.sources.latest(&self.siblings.source(&state.uid)?)
    }
}

/// Enqueues the Tasks of an item whenever its source was read.
pub(crate) async fn follow_sources(reconciler: &CancellationReconciler, enqueue: impl Fn(&str, &str)) {
    let enqueue_tasks = |key: Option<&SourceKey>| {
        let Some(key) = key else { return };
        for task in reconciler.siblings.of_source(key) {
            enqueue(&key.namespace, &task);
        }
    };
    reconciler.sources.follow(enqueue_tasks).await;
}

fn sighting(seen: &Observation) -> SourceObservation<'_> {
    SourceObservation {
        item: seen.item.as_deref(),
        discovered: seen.discovered,
        in_a_row: seen.in_a_row,
    }
}
