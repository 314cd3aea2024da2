//! The successor of a failed object: a server-side dry run before its predecessor is deleted, and the create afterwards.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, PostParams};
use serde_json::Value;
use taskgate_api::{
    WorkItemStatus,
    metadata::Metadata,
    retry_status::Blocked,
    task_policy::{RetriedKind, RetryPolicy},
};
use taskgate_policy::{
    clip,
    retry::{self, MAX_PREDECESSOR, Predecessor, Prepared, Retried, Succession, task_feedback, workload_feedback},
};
use tracing::info;

use super::{
    events::RetryEvent,
    reads::{self, children},
    transition::RetryInFlight,
};
use crate::{
    error::{Error, is_conflict, is_namespace_terminating, is_refused, message_of},
    work_items::{WorkItemResult, retry_status},
};

impl RetryInFlight<'_> {
    /// Reads what is deleted with the predecessor, and sends a dry run of its successor's create.
    pub(super) async fn prepare(&self, retried: Retried<'_>, rule: &RetryPolicy) -> Result<WorkItemResult, Error> {
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

    /// Creates the successor, under the current policy.
    pub(super) async fn create(&self, predecessor: &Predecessor, rule: &RetryPolicy) -> Result<WorkItemResult, Error> {
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

    pub(super) async fn refused(&self, message: &str) -> Result<WorkItemResult, Error> {
        let blocked = Blocked {
            reason: "SuccessorRefused".to_owned(),
            message: clip(message, 900),
            time: Time(Timestamp::now()),
        };
        self.block(RetryEvent::Refused, &blocked).await
    }
}
