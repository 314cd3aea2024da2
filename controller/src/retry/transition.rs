//! A retry that is under way. The policy crate decides the next step ([`taskgate_policy::retry::transition_step`]).
//!
//! Each step can be repeated. The create of the successor is sent as a server-side dry run before its predecessor is deleted, with the
//! UID and the version that were read; the successor carries the UID of its predecessor, so that another replica recognizes it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams, Preconditions},
};
use serde_json::Value;
use taskgate_api::{
    Mode, WorkItem, WorkItemStatus,
    metadata::Metadata,
    retry_status::{Blocked, RetryStage, Transition},
    task_policy::{RetriedKind, RetryPolicy},
};
use taskgate_policy::{
    clip,
    retry::{
        self, MAX_PREDECESSOR, NamedObject, Predecessor, Prepared, Retried, Stopped, Succession, TransitionContext,
        TransitionStep, task_feedback, transition_step, workload_feedback,
    },
};
use tracing::{debug, info};

use super::{
    RetryReconciler,
    events::{RetryEvent, write},
    objects,
    reads::{self, children, object, remains},
};
use crate::{
    breaker::requests,
    context::ItemRef,
    error::{Error, is_absent, is_conflict, is_namespace_terminating, is_refused, message_of},
    work_items::{WorkItemResult, retry_status, transition_of},
};

/// Until a request that was refused is sent again.
const AFTER_REFUSAL: SignedDuration = SignedDuration::from_secs(30);
/// Until a retry goes on while Foreman is not installed.
const WHILE_ABSENT: SignedDuration = SignedDuration::from_secs(15);

/// Takes the next step of the retry of `item` that is under way.
pub(super) async fn advance(retry: &RetryReconciler, key: &ItemRef, item: &WorkItem) -> Result<WorkItemResult, Error> {
    let Some(transition) = transition_of(item) else {
        return Ok(WorkItemResult::AwaitChange);
    };
    let Some(resource) = reads::resource(retry, transition.old.kind) else {
        return Ok(WorkItemResult::RequeueAt(after(retry.context.now(), WHILE_ABSENT)));
    };
    RetryInFlight {
        retry,
        key,
        item,
        transition,
        resource,
    }
    .take_step()
    .await
}

/// The inputs of a step.
struct RetryInFlight<'a> {
    retry: &'a RetryReconciler,
    key: &'a ItemRef,
    item: &'a WorkItem,
    transition: &'a Transition,
    resource: ApiResource,
}

impl RetryInFlight<'_> {
    async fn take_step(&self) -> Result<WorkItemResult, Error> {
        let Self { retry, transition, .. } = *self;
        let (kind, uid) = (transition.old.kind, transition.old.uid.as_str());
        let value = object(retry, (kind, &self.resource), &self.key.0, &transition.old.name).await?;
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
            now: retry.context.now(),
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
            TransitionStep::Confirm => self.confirm().await,
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
    fn rule(&self, retried: Retried<'_>) -> Option<RetryPolicy> {
        let found = self.retry.rule_of(&self.key.0, retried)?;
        let enforced = found.mode == Mode::Enforce && !retried.is_left_to_bridge(&found.rule);
        enforced.then_some(found.rule)
    }

    /// Reads what is deleted with the predecessor, and sends a dry run of its successor's create.
    async fn prepare(&self, retried: Retried<'_>, rule: &RetryPolicy) -> Result<WorkItemResult, Error> {
        let Self { retry, transition, .. } = *self;
        let children = match children(retry, &self.key.0, &transition.old).await {
            Ok(children) => children,
            // A failed read does not prevent the retry: the Workload's status names its children too.
            Err(error) => {
                info!(%error, source = %error.source, name = transition.old.name, "its children cannot be read: no feedback");
                Vec::new()
            }
        };
        let feedback = || self.feedback(retried, &children);
        let feedback = transition.with_feedback.then(feedback).flatten();
        let predecessor = Predecessor::of(retried);
        let prepared = Prepared {
            resource_version: retried.version().to_owned(),
            predecessor: predecessor.to_value(),
            children: reads::child_names(retried.object(), &children),
            feedback,
        };
        let size = prepared.predecessor.to_string().len();
        if size > MAX_PREDECESSOR {
            let message = format!("the object has {size} bytes: more than fit into its WorkItem while it is replaced");
            return self.refused(&message).await;
        }
        let successor = self.successor(rule, &predecessor, prepared.feedback.as_deref());
        match self.post(&successor, true).await {
            // The predecessor has the name; admission, quota and schema were asked before storage.
            Ok(_) => {}
            Err(error) if is_conflict(&error) => {}
            Err(error) if is_namespace_terminating(&error) => return Ok(WorkItemResult::AwaitChange),
            Err(error) if is_refused(&error) => return self.refused(&message_of(&error)).await,
            Err(error) => return Err(self.failed("asking for", error)),
        }
        let uid = transition.old.uid.as_str();
        retry.mark_unsent(uid);
        let change = |status: &WorkItemStatus, now| retry::prepared(status, uid, &prepared, now);
        let result = self.write(None, change).await?;
        if !matches!(result, WorkItemResult::Changed(_)) {
            retry.mark_sent(uid);
        }
        Ok(result)
    }

    fn feedback(&self, retried: Retried<'_>, children: &[Value]) -> Option<String> {
        match retried.kind() {
            RetriedKind::Workload => workload_feedback(children),
            RetriedKind::Task => {
                let failure = retry_status(self.item).failure;
                task_feedback(retried.object(), failure.as_ref().map_or("", |failure| &failure.reason))
            }
        }
    }

    /// Deletes the predecessor that was read, and no other.
    async fn delete(&self) -> Result<WorkItemResult, Error> {
        let Self { retry, transition, .. } = *self;
        let uid = transition.old.uid.as_str();
        // Its children are deleted first: Foreman would take them for the successor's.
        let params = DeleteParams::foreground().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: Some(transition.resource_version.clone()),
        });
        let (namespace, name) = (&self.key.0, &transition.old.name);
        let api = Api::<DynamicObject>::namespaced_with(retry.context.client.clone(), namespace, &self.resource);
        let first = retry.mark_sent(uid);
        match api.delete(name, &params).await {
            Ok(_) => {
                info!(namespace, name, "deleted a failed object, to retry it");
                self.confirm().await
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

    /// Creates the successor, under the current policy.
    async fn create(&self, predecessor: &Predecessor, rule: &RetryPolicy) -> Result<WorkItemResult, Error> {
        let successor = self.successor(rule, predecessor, self.transition.feedback.as_deref());
        match self.post(&successor, false).await {
            Ok(created) => self.close(Metadata::of(&created).uid().unwrap_or_default()).await,
            // The next step reads which client created it.
            Err(error) if is_conflict(&error) => Ok(WorkItemResult::Unchanged),
            Err(error) if is_namespace_terminating(&error) => Ok(WorkItemResult::AwaitChange),
            Err(error) if is_refused(&error) => self.refused(&message_of(&error)).await,
            Err(error) => Err(self.failed("creating", error)),
        }
    }

    fn successor(&self, rule: &RetryPolicy, predecessor: &Predecessor, feedback: Option<&str>) -> Value {
        let succession = Succession {
            rule,
            attempt: self.transition.to,
            of: &self.transition.old.uid,
            feedback,
        };
        let kind = self.transition.old.kind;
        let mut successor = retry::successor(kind, predecessor, &succession);
        if kind == RetriedKind::Workload {
            let (context, namespace) = (&self.retry.context, &self.key.0);
            let (policies, labels) = (context.policies(), context.namespace_labels(namespace));
            // All templates of all policies.
            tokio::task::block_in_place(|| retry::apply_sections(&policies, namespace, &labels, &mut successor));
        }
        successor
    }

    /// Sends a create. A field that the CRD does not have is refused and not dropped.
    async fn post(&self, successor: &Value, dry_run: bool) -> kube::Result<Value> {
        let params = PostParams {
            dry_run,
            ..PostParams::default()
        };
        let body = serde_json::to_vec(successor).map_err(kube::Error::SerdeError)?;
        let path = <DynamicObject as kube::Resource>::url_path(&self.resource, Some(&self.key.0));
        let request = kube::core::Request::new(path).create(&params, body);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        let strict = format!("{}&fieldValidation=Strict", request.uri());
        *request.uri_mut() = strict.parse().expect("a URI with one more parameter is one");
        self.retry.context.client.request(request).await
    }

    async fn refused(&self, message: &str) -> Result<WorkItemResult, Error> {
        let blocked = Blocked {
            reason: "SuccessorRefused".to_owned(),
            message: clip(message, 900),
            time: Time(self.retry.context.now()),
        };
        self.block(RetryEvent::Refused, &blocked).await
    }

    /// Records that the predecessor is deleted.
    async fn confirm(&self) -> Result<WorkItemResult, Error> {
        let uid = self.transition.old.uid.as_str();
        let deleted = |status: &WorkItemStatus, now| retry::deleted(status, uid, now);
        self.write(Some(RetryEvent::Deleted), deleted).await
    }

    /// Records why the retry does not go on now, and requeues it.
    async fn block(&self, event: RetryEvent, blocked: &Blocked) -> Result<WorkItemResult, Error> {
        let uid = self.transition.old.uid.as_str();
        let change = |status: &WorkItemStatus, now| retry::blocked(status, uid, blocked, now);
        Ok(match self.write(Some(event), change).await? {
            WorkItemResult::Changed(_) | WorkItemResult::Unchanged => {
                WorkItemResult::RequeueAt(after(self.retry.context.now(), AFTER_REFUSAL))
            }
            result => result,
        })
    }

    async fn close(&self, successor: &str) -> Result<WorkItemResult, Error> {
        let uid = self.transition.old.uid.as_str();
        let change = |status: &WorkItemStatus, now| retry::closed(status, uid, successor, now);
        self.write(Some(RetryEvent::Recreated), change).await
    }

    async fn stop(&self, why: Stopped) -> Result<WorkItemResult, Error> {
        let uid = self.transition.old.uid.as_str();
        self.retry.mark_sent(uid);
        let change = |status: &WorkItemStatus, now| retry::stopped(status, uid, why, now);
        self.write(Some(RetryEvent::Stopped(why)), change).await
    }

    async fn write(
        &self,
        event: Option<RetryEvent>,
        change: impl FnOnce(&WorkItemStatus, Timestamp) -> Option<WorkItemStatus>,
    ) -> Result<WorkItemResult, Error> {
        write(self.retry, self.item, &self.transition.old, event, change).await
    }

    fn failed(&self, doing: &'static str, error: kube::Error) -> Error {
        let run = &self.transition.old;
        Error::new(doing, run.kind.into(), &self.key.0, &run.name, error)
    }
}

/// The moment `wait` after `now`.
pub(super) fn after(now: Timestamp, wait: SignedDuration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
