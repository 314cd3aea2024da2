//! The successor of a failed object: asked for by a dry run before its predecessor goes, and created afterwards.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, PostParams};
use serde_json::Value;
use taskgate_api::{
    retry_status::Blocked,
    task_policy::{RetriedKind, RetryPolicy},
};
use taskgate_policy::{
    clip,
    retry::{self, MAX_PREDECESSOR, Predecessor, Prepared, Retried, Succession, task_feedback, workload_feedback},
};
use tracing::info;

use super::{
    item::Look,
    look::{self, children},
    memory::{self, Written},
    tell::Happened,
    transition::{REFUSED_AGAIN, Step, after},
};
use crate::error::{Error, is_conflict, is_namespace_terminating, is_refused};

impl Step<'_> {
    /// Reads what dies with the predecessor, and asks whether its successor would be admitted.
    pub(super) async fn prepare(&self, retried: Retried<'_>, rule: &RetryPolicy) -> Result<Look, Error> {
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
        let predecessor = Predecessor::of(retried);
        let prepared = Prepared {
            resource_version: retried.version().to_owned(),
            predecessor: predecessor.to_value(),
            children: look::child_names(retried.object(), &children),
            feedback,
        };
        let size = prepared.predecessor.to_string().len();
        if size > MAX_PREDECESSOR {
            let message = format!("the object has {size} bytes: more than fit into its WorkItem while it is away");
            return self.refused(&message).await;
        }
        let successor = self.successor(rule, &predecessor, prepared.feedback.as_deref());
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

    /// Creates the successor, under the policy of this moment.
    pub(super) async fn create(&self, predecessor: &Predecessor, rule: &RetryPolicy) -> Result<Look, Error> {
        let successor = self.successor(rule, predecessor, self.transition.feedback.as_deref());
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
            let namespace = self.item.0.as_str();
            let policies = &self.context.policies;
            let labels = policies.namespace_labels(namespace);
            // All templates of all policies.
            tokio::task::block_in_place(|| {
                retry::apply_sections(&policies.current(), namespace, &labels, &mut successor)
            });
        }
        successor
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

    pub(super) async fn refused(&self, message: &str) -> Result<Look, Error> {
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
}

/// What the API server said.
pub(super) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
