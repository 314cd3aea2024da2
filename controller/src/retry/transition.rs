//! A retry that is under way: takes the steps that the decision core finds ([`taskgate_policy::retry::transition_step`]).
//!
//! Each step can be taken twice. The predecessor is deleted with the UID and the version that were read; the successor bears
//! the UID of its predecessor, so that whoever finds it knows whose it is.

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
    item::Look,
    look::{self, failed, left, object},
    memory::{self, Written},
    objects,
    succeed::said,
    tell::{Happened, tell},
};
use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict, is_refused},
    requests,
    tasks::ItemRef,
};

/// Until the API server is asked again for what it refused.
pub(super) const REFUSED_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// Until Foreman is looked for again.
const ABSENT_AGAIN: SignedDuration = SignedDuration::from_secs(15);

/// Takes the next step of the retry of `item` that is under way.
pub(super) async fn advance(context: &Context, item: &ItemRef, memory: &WorkItem) -> Result<Look, Error> {
    let Some(transition) = memory::transition_of(memory) else {
        return Ok(Look::Nothing);
    };
    let Some(resource) = look::resource(context, transition.old.kind) else {
        return Ok(Look::At(after(ABSENT_AGAIN)));
    };
    let step = Step {
        context,
        item,
        memory,
        transition,
        resource,
    };
    step.take().await
}

/// What a step needs.
pub(super) struct Step<'a> {
    pub(super) context: &'a Context,
    pub(super) item: &'a ItemRef,
    pub(super) memory: &'a WorkItem,
    pub(super) transition: &'a Transition,
    pub(super) resource: ApiResource,
}

impl Step<'_> {
    async fn take(&self) -> Result<Look, Error> {
        let Self {
            context, transition, ..
        } = *self;
        let (kind, uid) = (transition.old.kind, transition.old.uid.as_str());
        let value = object(context, &self.resource, &self.item.0, &transition.old.name).await?;
        let retried = value.as_ref().and_then(|value| Retried::of(kind, value));
        // A Task that a spawner made is somebody else's as well.
        let found = match (&value, retried) {
            (Some(_), None) => NamedObject::Other,
            (_, retried) => NamedObject::of(retried, transition),
        };
        let kept = match transition.step {
            RetryStage::Planned => None,
            RetryStage::Deleting | RetryStage::Deleted => Some(Predecessor::stored(transition, &self.item.0)),
        };
        let stored = kept
            .as_ref()
            .and_then(|kept| kept.as_ref().ok())
            .map(Predecessor::to_value);
        let predecessor = stored.as_ref().and_then(|stored| Retried::of(kind, stored));
        // The object itself while it is there, then what is kept of it.
        let subject = retried.filter(|retried| retried.uid() == uid).or(predecessor);
        let invalid = match kept.as_ref() {
            Some(Err(why)) => Some(*why),
            Some(Ok(_)) if predecessor.is_none() => Some("a spawner makes its predecessor"),
            _ => self.invalid(subject.into_iter().chain(predecessor)),
        };
        let rule = subject.and_then(|subject| self.rule(subject));
        let mut scene = TransitionContext {
            transition,
            found,
            wanted: rule.is_some() || self.is_asked(),
            invalid,
            unsent: context.retry.is_unsent(uid),
            left: None,
            now: Timestamp::now(),
        };
        let mut next = transition_step(&scene);
        let remnants;
        if next == TransitionStep::ListRemains {
            remnants = left(context, self.item, transition).await?;
            scene.left = Some(&remnants);
            next = transition_step(&scene);
        }
        debug!(namespace = self.item.0, name = transition.old.name, step = ?next, "retry");
        match next {
            TransitionStep::Wait(until) => Ok(Look::At(until)),
            TransitionStep::ListRemains => Ok(Look::Nothing),
            TransitionStep::Prepare => match retried {
                Some(retried) => self.prepare(retried, &rule.unwrap_or_default()).await,
                None => Ok(Look::Nothing),
            },
            TransitionStep::Replan => self.write(None, |status, now| retry::replanned(status, uid, now)).await,
            TransitionStep::Delete => self.delete().await,
            TransitionStep::Confirm => {
                self.write(Some(Happened::Deleted), |status, now| retry::deleted(status, uid, now))
                    .await
            }
            TransitionStep::Block(blocked) => self.block(Happened::Blocked, &blocked).await,
            TransitionStep::Create => match kept {
                Some(Ok(predecessor)) => self.create(&predecessor, &rule.unwrap_or_default()).await,
                _ => Ok(Look::Nothing),
            },
            TransitionStep::Close(successor) => self.close(&successor).await,
            TransitionStep::Stop(why) => self.stop(why).await,
        }
    }

    /// Why the stored retry of `objects` cannot belong to this item. The status proves nothing: it may be forged.
    fn invalid<'a>(&self, mut objects: impl Iterator<Item = Retried<'a>>) -> Option<&'static str> {
        if self.context.is_excluded(&self.item.0) {
            return Some("nothing is retried in this namespace");
        }
        let foreign = objects.any(|object| !objects::is_of(self.context, self.memory, object));
        foreign.then_some("the object belongs to another item")
    }

    /// Whether a user asks for it, as admission saw.
    fn is_asked(&self) -> bool {
        let order = requests::retry(self.memory);
        self.transition.requested_by.is_some() && order.is_some_and(|(order, _)| order.run() == self.transition.old)
    }

    /// What the policy of the moment says of `retried`, if it enforces a retry.
    pub(super) fn rule(&self, retried: Retried<'_>) -> Option<RetryPolicy> {
        let policies = self.context.policies.current();
        let labels = self.context.policies.namespace_labels(&self.item.0);
        let found = PolicyScope::new(&policies, &self.item.0, &labels, None).retry(retried.kind(), retried.object())?;
        let enforced = found.mode == Mode::Enforce && !retried.is_left_to_bridge(found.rule);
        enforced.then(|| found.rule.clone())
    }

    /// Deletes the predecessor that was read, and no other.
    async fn delete(&self) -> Result<Look, Error> {
        let Self {
            context, transition, ..
        } = *self;
        let uid = transition.old.uid.as_str();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: Some(transition.resource_version.clone()),
            }),
            // Its children go first: Foreman would take them for the successor's (foreman trap 7).
            ..DeleteParams::foreground()
        };
        let first = context.retry.sent(uid);
        match self.api().delete(&transition.old.name, &params).await {
            Ok(_) => {
                info!(
                    namespace = self.item.0,
                    name = transition.old.name,
                    "deleted a failed run, to repeat it"
                );
                self.write(Some(Happened::Deleted), |status, now| retry::deleted(status, uid, now))
                    .await
            }
            // Somebody else was faster, and it is certain that it was not us.
            Err(error) if is_absent(&error) && first => self.stop(Stopped::Deleted).await,
            Err(error) if is_absent(&error) => Ok(Look::Again),
            Err(error) if is_conflict(&error) => {
                if first {
                    context.retry.unsent(uid);
                }
                Ok(Look::Again)
            }
            Err(error) if is_refused(&error) => self.refused(&said(&error)).await,
            Err(error) => Err(self.failed("deleting", error)),
        }
    }

    pub(super) async fn block(&self, happened: Happened, blocked: &Blocked) -> Result<Look, Error> {
        let uid = self.transition.old.uid.as_str();
        let look = self
            .write(Some(happened), |status, now| retry::blocked(status, uid, blocked, now))
            .await?;
        match look {
            Look::Wrote(Written::Now(_) | Written::Before) => Ok(Look::At(after(REFUSED_AGAIN))),
            look => Ok(look),
        }
    }

    pub(super) async fn close(&self, successor: &str) -> Result<Look, Error> {
        let uid = self.transition.old.uid.as_str();
        self.write(Some(Happened::Recreated), |status, now| {
            retry::closed(status, uid, successor, now)
        })
        .await
    }

    async fn stop(&self, why: Stopped) -> Result<Look, Error> {
        let uid = self.transition.old.uid.as_str();
        self.context.retry.sent(uid);
        let happened = Happened::Stopped(why.reason());
        self.write(Some(happened), |status, now| retry::stopped(status, uid, why, now))
            .await
    }

    pub(super) async fn write(
        &self,
        happened: Option<Happened>,
        change: impl FnOnce(&WorkItemStatus, Timestamp) -> Option<WorkItemStatus>,
    ) -> Result<Look, Error> {
        let written = memory::write(self.context, self.memory, change).await?;
        if let (Written::Now(item), Some(happened)) = (&written, happened) {
            tell(self.context, item, &self.transition.old, happened).await;
        }
        Ok(Look::Wrote(written))
    }

    fn api(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.context.client.clone(), &self.item.0, &self.resource)
    }

    pub(super) fn failed(&self, doing: &'static str, error: kube::Error) -> Error {
        failed(
            doing,
            self.transition.old.kind.as_str(),
            &self.item.0,
            &self.transition.old.name,
            error,
        )
    }
}

pub(super) fn after(wait: SignedDuration) -> Timestamp {
    Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX)
}
