//! A retry that is under way. The policy crate decides the next step ([`taskgate_policy::retry::transition_step`]).
//!
//! Each step can be repeated. The predecessor is deleted with the UID and the version that were read; the successor carries the UID
//! of its predecessor, so that another replica recognizes it.

use jiff::{SignedDuration, Timestamp};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Preconditions},
};
use taskgate_api::{
    Mode, WorkItem, WorkItemStatus,
    retry_status::{Blocked, RetryStage, Transition},
    task_policy::RetryPolicy,
};
use taskgate_policy::{
    PolicyScope,
    retry::{self, NamedObject, Predecessor, Retried, Stopped, TransitionContext, TransitionStep, transition_step},
};
use tracing::{debug, info};

use super::{
    RetryReconciler,
    events::{self, RetryEvent},
    objects,
    reads::{self, object, remains},
};
use crate::{
    breaker::requests,
    error::{Error, is_absent, is_conflict, is_refused, message_of},
    task_index::ItemRef,
    work_items::{self, WorkItemResult, transition_of},
};

/// Until a request that was refused is sent again.
pub(super) const AFTER_REFUSAL: SignedDuration = SignedDuration::from_secs(30);
/// Until a retry goes on while Foreman is not installed.
const WHILE_ABSENT: SignedDuration = SignedDuration::from_secs(15);

/// Takes the next step of the retry of `item` that is under way.
pub(super) async fn advance(retry: &RetryReconciler, key: &ItemRef, item: &WorkItem) -> Result<WorkItemResult, Error> {
    let Some(transition) = transition_of(item) else {
        return Ok(WorkItemResult::AwaitChange);
    };
    let Some(resource) = reads::resource(retry, transition.old.kind) else {
        return Ok(WorkItemResult::RequeueAt(after(WHILE_ABSENT)));
    };
    let in_flight = RetryInFlight {
        retry,
        key,
        item,
        transition,
        resource,
    };
    in_flight.take_step().await
}

/// The inputs of a step.
pub(super) struct RetryInFlight<'a> {
    pub(super) retry: &'a RetryReconciler,
    pub(super) key: &'a ItemRef,
    pub(super) item: &'a WorkItem,
    pub(super) transition: &'a Transition,
    pub(super) resource: ApiResource,
}

impl RetryInFlight<'_> {
    async fn take_step(&self) -> Result<WorkItemResult, Error> {
        let Self { retry, transition, .. } = *self;
        let (kind, uid) = (transition.old.kind, transition.old.uid.as_str());
        let value = object(retry, &self.resource, &self.key.0, &transition.old.name).await?;
        let retried = value.as_ref().and_then(|value| Retried::of(kind, value));
        // A Task that a spawner created is another object as well.
        let found = match (&value, retried) {
            (Some(_), None) => NamedObject::Other,
            (_, retried) => NamedObject::of(retried, transition),
        };
        let kept = match transition.step {
            RetryStage::Planned => None,
            RetryStage::Deleting | RetryStage::Deleted => Some(Predecessor::stored(transition, &self.key.0)),
        };
        let stored = kept
            .as_ref()
            .and_then(|kept| kept.as_ref().ok())
            .map(Predecessor::to_value);
        let predecessor = stored.as_ref().and_then(|stored| Retried::of(kind, stored));
        // The object itself while it exists, then the stored copy.
        let subject = retried.filter(|retried| retried.uid() == uid).or(predecessor);
        let invalid = match kept.as_ref() {
            Some(Err(why)) => Some(*why),
            Some(Ok(_)) if predecessor.is_none() => Some("a spawner creates its predecessor"),
            _ => self.invalid(subject.into_iter().chain(predecessor)),
        };
        let rule = subject.and_then(|subject| self.rule(subject));
        let mut inputs = TransitionContext {
            transition,
            found,
            wanted: rule.is_some() || self.is_requested(),
            invalid,
            unsent: retry.is_unsent(uid),
            left: None,
            now: Timestamp::now(),
        };
        let mut next = transition_step(&inputs);
        let left;
        if next == TransitionStep::ListRemains {
            left = remains(retry, self.key, transition).await?;
            inputs.left = Some(&left);
            next = transition_step(&inputs);
        }
        debug!(namespace = self.key.0, name = transition.old.name, step = ?next, "retry");
        match next {
            TransitionStep::Wait(until) => Ok(WorkItemResult::RequeueAt(until)),
            TransitionStep::ListRemains => Ok(WorkItemResult::AwaitChange),
            TransitionStep::Prepare => match retried {
                Some(retried) => self.prepare(retried, &rule.unwrap_or_default()).await,
                None => Ok(WorkItemResult::AwaitChange),
            },
            TransitionStep::Replan => self.write(None, |status, now| retry::replanned(status, uid, now)).await,
            TransitionStep::Delete => self.delete().await,
            TransitionStep::Confirm => {
                self.write(Some(RetryEvent::Deleted), |status, now| {
                    retry::deleted(status, uid, now)
                })
                .await
            }
            TransitionStep::Block(blocked) => self.block(RetryEvent::Blocked, &blocked).await,
            TransitionStep::Create => match kept {
                Some(Ok(predecessor)) => self.create(&predecessor, &rule.unwrap_or_default()).await,
                _ => Ok(WorkItemResult::AwaitChange),
            },
            TransitionStep::Close(successor) => self.close(&successor).await,
            TransitionStep::Stop(why) => self.stop(why).await,
        }
    }

    /// Why the stored retry of `objects` cannot belong to this item: the status may be forged.
    fn invalid<'a>(&self, mut objects: impl Iterator<Item = Retried<'a>>) -> Option<&'static str> {
        if self.retry.context.is_excluded(&self.key.0) {
            return Some("nothing is retried in this namespace");
        }
        let foreign = objects.any(|object| !objects::is_of(self.retry, self.item, object));
        foreign.then_some("the object belongs to another item")
    }

    /// Whether a user asks for it, with admission's stamp.
    fn is_requested(&self) -> bool {
        let order = requests::requested_retry(self.item);
        self.transition.requested_by.is_some() && order.is_some_and(|(order, _)| order.run() == self.transition.old)
    }

    /// The rule of the current policy for `retried`, if it enforces a retry.
    pub(super) fn rule(&self, retried: Retried<'_>) -> Option<RetryPolicy> {
        let policies = self.retry.context.policies();
        let labels = self.retry.context.namespace_labels(&self.key.0);
        let found = PolicyScope::new(&policies, &self.key.0, &labels, None).retry(retried.kind(), retried.object())?;
        let enforced = found.mode == Mode::Enforce && !retried.is_left_to_bridge(found.rule);
        enforced.then(|| found.rule.clone())
    }

    /// Deletes the predecessor that was read, and no other.
    async fn delete(&self) -> Result<WorkItemResult, Error> {
        let Self { retry, transition, .. } = *self;
        let uid = transition.old.uid.as_str();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: Some(transition.resource_version.clone()),
            }),
            // Its children are deleted first: Foreman would take them for the successor's.
            ..DeleteParams::foreground()
        };
        let first = retry.mark_sent(uid);
        match self.api().delete(&transition.old.name, &params).await {
            Ok(_) => {
                info!(
                    namespace = self.key.0,
                    name = transition.old.name,
                    "deleted a failed object, to retry it"
                );
                self.write(Some(RetryEvent::Deleted), |status, now| {
                    retry::deleted(status, uid, now)
                })
                .await
            }
            // Another client deleted it: this is the first try of any replica.
            Err(error) if is_absent(&error) && first => self.stop(Stopped::Deleted).await,
            Err(error) if is_absent(&error) => Ok(WorkItemResult::Unchanged),
            Err(error) if is_conflict(&error) => {
                if first {
                    retry.mark_unsent(uid);
                }
                Ok(WorkItemResult::Unchanged)
            }
            Err(error) if is_refused(&error) => self.refused(&message_of(&error)).await,
            Err(error) => Err(self.failed("deleting", error)),
        }
    }

    pub(super) async fn block(&self, event: RetryEvent, blocked: &Blocked) -> Result<WorkItemResult, Error> {
        let uid = self.transition.old.uid.as_str();
        let result = self
            .write(Some(event), |status, now| retry::blocked(status, uid, blocked, now))
            .await?;
        match result {
            WorkItemResult::Changed(_) | WorkItemResult::Unchanged => {
                Ok(WorkItemResult::RequeueAt(after(AFTER_REFUSAL)))
            }
            result => Ok(result),
        }
    }

    pub(super) async fn close(&self, successor: &str) -> Result<WorkItemResult, Error> {
        let uid = self.transition.old.uid.as_str();
        self.write(Some(RetryEvent::Recreated), |status, now| {
            retry::closed(status, uid, successor, now)
        })
        .await
    }

    async fn stop(&self, why: Stopped) -> Result<WorkItemResult, Error> {
        let uid = self.transition.old.uid.as_str();
        self.retry.mark_sent(uid);
        let event = RetryEvent::Stopped(why.reason());
        self.write(Some(event), |status, now| retry::stopped(status, uid, why, now))
            .await
    }

    pub(super) async fn write(
        &self,
        event: Option<RetryEvent>,
        change: impl FnOnce(&WorkItemStatus, Timestamp) -> Option<WorkItemStatus>,
    ) -> Result<WorkItemResult, Error> {
        let written = work_items::write(&self.retry.context, self.item, change).await?;
        if let (WorkItemResult::Changed(item), Some(event)) = (&written, event) {
            events::record(self.retry, item, &self.transition.old, event);
        }
        Ok(written)
    }

    fn api(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.retry.context.client.clone(), &self.key.0, &self.resource)
    }

    pub(super) fn failed(&self, doing: &'static str, error: kube::Error) -> Error {
        Error::new(
            doing,
            self.transition.old.kind.as_str(),
            &self.key.0,
            &self.transition.old.name,
            error,
        )
    }
}

pub(super) fn after(wait: SignedDuration) -> Timestamp {
    Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX)
}
