//! A retry that is under way: takes the steps that the decision core finds ([`taskgate_policy::retry::transition_step`]).
//!
//! Each step can be taken twice. The predecessor is deleted with the UID and the version that were read; the successor bears
//! the UID of its predecessor, so that whoever finds it knows whose it is.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams, Preconditions},
};
use serde_json::Value;
use taskgate_api::{
    Mode, WorkItem,
    retry_ledger::{Blocked, Transition},
    task_policy::{RetriedKind, RetryPolicy},
};
use taskgate_policy::{
    clip,
    retry::{
        self, Found, Prepared, Retried, Stopped, Succession, TransitionScene, TransitionStep, remains, task_feedback,
        transition_step, workload_feedback,
    },
    retry_rule,
};
use tracing::{debug, info};

use super::{
    Look,
    look::{self, children, failed, left, object},
    memory::{self, Written},
    tell::{Happened, tell},
};
use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict, is_namespace_terminating, is_refused},
    tasks::ItemRef,
};

/// Until the API server is asked again for what it refused.
const REFUSED_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// Until Foreman is looked for again.
const ABSENT_AGAIN: SignedDuration = SignedDuration::from_secs(15);
/// The largest predecessor that the ledger takes, in bytes: beside it stands the history, and an object may have 1.5 MiB.
const MAX_PREDECESSOR: usize = 768 * 1024;

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

struct Step<'a> {
    context: &'a Context,
    item: &'a ItemRef,
    memory: &'a WorkItem,
    transition: &'a Transition,
    resource: ApiResource,
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
            (Some(_), None) => Found::Other,
            (_, retried) => Found::of(retried, transition),
        };
        let rule = retried.and_then(|retried| self.rule(retried));
        let mut scene = TransitionScene {
            transition,
            found,
            wanted: rule.is_some() || transition.requested_by.is_some(),
            unsent: context.retry.is_unsent(uid),
            left: None,
            now: Timestamp::now(),
        };
        let mut next = transition_step(&scene);
        let remnants;
        if next == TransitionStep::LookForRemains {
            remnants = left(context, self.item, transition).await?;
            scene.left = Some(&remnants);
            next = transition_step(&scene);
        }
        debug!(namespace = self.item.0, name = transition.old.name, step = ?next, "retry");
        match next {
            TransitionStep::Wait(until) => Ok(Look::At(until)),
            TransitionStep::LookForRemains => Ok(Look::Nothing),
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
            TransitionStep::Create => self.create().await,
            TransitionStep::Close(successor) => self.close(&successor).await,
            TransitionStep::Stop(why) => self.stop(why).await,
        }
    }

    /// What the policy of the moment says of `retried`, if it enforces a retry.
    fn rule(&self, retried: Retried<'_>) -> Option<RetryPolicy> {
        let policies = self.context.policies.current();
        let labels = self.context.policies.namespace_labels(&self.item.0);
        let found = retry_rule(&policies, &self.item.0, &labels, retried)?;
        let enforced = found.mode == Mode::Enforce && !retried.is_left_to_bridge(found.rule);
        enforced.then(|| found.rule.clone())
    }

    /// Reads what dies with the predecessor, and asks whether its successor would be admitted.
    async fn prepare(&self, retried: Retried<'_>, rule: &RetryPolicy) -> Result<Look, Error> {
        let Self {
            context, transition, ..
        } = *self;
        let children = match children(context, &self.item.0, &transition.old).await {
            Ok(children) => children,
            // A failed look never keeps a run from being repeated: the Workload itself names its children too.
            Err(error) => {
                info!(%error, source = %error.source, name = transition.old.name, "its children cannot be read: no feedback");
                Vec::new()
            }
        };
        let feedback = transition
            .with_feedback
            .then(|| self.feedback(retried, &children))
            .flatten();
        let prepared = Prepared {
            resource_version: retried.version().to_owned(),
            predecessor: remains(retried),
            children: look::child_names(retried.object(), &children),
            feedback,
        };
        let size = prepared.predecessor.to_string().len();
        if size > MAX_PREDECESSOR {
            let message = format!("the object has {size} bytes: more than fit into its WorkItem while it is away");
            return self.refused(&message).await;
        }
        let successor = self.successor(rule, &prepared.predecessor, prepared.feedback.as_deref());
        match self.post(&successor, true).await {
            // The name is taken by the predecessor; everybody who may refuse was asked before (foreman trap 10).
            Ok(_) => {}
            Err(error) if is_conflict(&error) => {}
            Err(error) if is_namespace_terminating(&error) => return Ok(Look::Nothing),
            Err(error) if is_refused(&error) => return self.refused(&said(&error)).await,
            Err(error) => return Err(self.failed("asking for", error)),
        }
        let uid = transition.old.uid.as_str();
        context.retry.unsent(uid);
        let look = self
            .write(None, |status, now| retry::prepared(status, uid, &prepared, now))
            .await?;
        if !matches!(look, Look::Wrote(Written::Now(_))) {
            context.retry.sent(uid);
        }
        Ok(look)
    }

    fn feedback(&self, retried: Retried<'_>, children: &[Value]) -> Option<String> {
        match retried.kind() {
            RetriedKind::Workload => workload_feedback(children),
            RetriedKind::Task => {
                let ledger = memory::ledger_of(self.memory);
                task_feedback(
                    retried.object(),
                    ledger.failure.as_ref().map_or("", |failure| &failure.reason),
                )
            }
        }
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

    /// Creates the successor, under the policy of this moment.
    async fn create(&self) -> Result<Look, Error> {
        let transition = self.transition;
        let Some(predecessor) = &transition.predecessor else {
            return Ok(Look::Nothing);
        };
        let retried = Retried::of(transition.old.kind, predecessor);
        let rule = retried.and_then(|retried| self.rule(retried)).unwrap_or_default();
        let successor = self.successor(&rule, predecessor, transition.feedback.as_deref());
        match self.post(&successor, false).await {
            Ok(created) => {
                let uid = created
                    .pointer("/metadata/uid")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                self.close(uid).await
            }
            // By whom is looked at next.
            Err(error) if is_conflict(&error) => Ok(Look::Again),
            Err(error) if is_namespace_terminating(&error) => Ok(Look::Nothing),
            Err(error) if is_refused(&error) => self.refused(&said(&error)).await,
            Err(error) => Err(self.failed("creating", error)),
        }
    }

    fn successor(&self, rule: &RetryPolicy, predecessor: &Value, feedback: Option<&str>) -> Value {
        let succession = Succession {
            rule,
            attempt: self.transition.to,
            of: &self.transition.old.uid,
            feedback,
        };
        retry::successor(self.transition.old.kind, predecessor, &succession)
    }

    /// Sends a create. A field that the CRD does not have is refused and not dropped (foreman trap 16).
    async fn post(&self, successor: &Value, dry_run: bool) -> kube::Result<Value> {
        let params = PostParams {
            dry_run,
            ..PostParams::default()
        };
        let body = serde_json::to_vec(successor).map_err(kube::Error::SerdeError)?;
        let path = <DynamicObject as kube::Resource>::url_path(&self.resource, Some(&self.item.0));
        let request = kube::core::Request::new(path).create(&params, body);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        let strict = format!("{}&fieldValidation=Strict", request.uri());
        *request.uri_mut() = strict.parse().expect("a URI with one more parameter is one");
        self.context.client.request(request).await
    }

    async fn refused(&self, message: &str) -> Result<Look, Error> {
        let blocked = Blocked {
            reason: "SuccessorRefused".to_owned(),
            message: clip(message, 900),
            time: Time(Timestamp::now()),
        };
        match self.block(Happened::Refused, &blocked).await? {
            Look::Wrote(Written::Before) | Look::At(_) => Ok(Look::At(after(REFUSED_AGAIN))),
            look => Ok(look),
        }
    }

    async fn block(&self, happened: Happened, blocked: &Blocked) -> Result<Look, Error> {
        let uid = self.transition.old.uid.as_str();
        let look = self
            .write(Some(happened), |status, now| retry::blocked(status, uid, blocked, now))
            .await?;
        match look {
            Look::Wrote(Written::Now(_) | Written::Before) => Ok(Look::At(after(REFUSED_AGAIN))),
            look => Ok(look),
        }
    }

    async fn close(&self, successor: &str) -> Result<Look, Error> {
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

    async fn write(
        &self,
        happened: Option<Happened>,
        change: impl FnOnce(&taskgate_api::WorkItemStatus, Timestamp) -> Option<taskgate_api::WorkItemStatus>,
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

    fn failed(&self, doing: &'static str, error: kube::Error) -> Error {
        failed(
            doing,
            self.transition.old.kind.as_str(),
            &self.item.0,
            &self.transition.old.name,
            error,
        )
    }
}

/// What the API server said.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn after(wait: SignedDuration) -> Timestamp {
    Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX)
}
