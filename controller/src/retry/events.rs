//! The Events and metrics of a retry. An Event is recorded on the `WorkItem` and on the object, in the words of the condition; the
//! failed object itself is not written.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Resource as _,
    runtime::events::EventType::{self, Normal, Warning},
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use taskgate_api::{WorkItem, WorkItemStatus, retry_status::RunRef};
use taskgate_policy::retry::{GivenUp, Stopped};

use super::{RetryReconciler, reads::resource};
use crate::{
    error::Error,
    metrics::{Labels, registered},
    work_items::{self, WorkItemResult, retry_status},
};

/// The `action` of all of them.
const ACTION: &str = "Retry";

/// What happened to a retry. A closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryEvent {
    /// A run failed.
    Failed,
    /// It is to be run again.
    Planned,
    /// The API server refuses the successor.
    Refused,
    /// The predecessor was deleted.
    Deleted,
    /// The retry is blocked.
    Blocked,
    /// The successor was created.
    Recreated,
    /// There is no retry, for this reason.
    GivenUp(GivenUp),
    /// The retry was ended, for this reason.
    Stopped(Stopped),
    /// The object of the failed run was deleted, and not by taskgate.
    RunDeleted,
    /// The successor was deleted before its end was recorded, and not by taskgate.
    SuccessorDeleted,
}

impl RetryEvent {
    /// The type and the reason of the Event, and the outcome in the metric.
    fn words(self) -> (EventType, &'static str, &'static str) {
        match self {
            Self::Failed => (Warning, "RunFailed", "failed"),
            Self::Planned => (Normal, "RetryPlanned", "planned"),
            Self::Refused => (Warning, "RetryRefused", "refused"),
            Self::Deleted => (Normal, "RetryDeleted", "deleted"),
            Self::Blocked => (Warning, "RetryBlocked", "blocked"),
            Self::Recreated => (Normal, "Retried", "recreated"),
            Self::GivenUp(GivenUp::Attempts { .. }) => (Warning, "RetryGivenUp", "max_attempts"),
            Self::GivenUp(GivenUp::Infrastructure { .. }) => (Warning, "RetryGivenUp", "max_infrastructure_failures"),
            Self::GivenUp(GivenUp::Human) => (Warning, "RetryGivenUp", "needs_human"),
            Self::GivenUp(GivenUp::Obsolete) => (Warning, "RetryGivenUp", "source_closed"),
            Self::GivenUp(GivenUp::OnlyObserved { .. }) => (Warning, "WouldRetry", "would_retry"),
            Self::Stopped(Stopped::Deleted) => (Normal, "RetryEnded", "deleted_externally"),
            Self::Stopped(Stopped::Replaced) => (Normal, "RetryEnded", "replaced_externally"),
            Self::Stopped(Stopped::Revived) => (Normal, "RetryEnded", "not_failed_any_more"),
            Self::GivenUp(GivenUp::Unwanted) | Self::Stopped(Stopped::Unwanted) => {
                (Normal, "RetryEnded", "policy_gone")
            }
            Self::Stopped(Stopped::Invalid(_)) => (Normal, "RetryEnded", "retry_invalid"),
            Self::RunDeleted => (Normal, "RetryEnded", "run_deleted"),
            Self::SuccessorDeleted => (Warning, "RetryEnded", "successor_deleted"),
        }
    }
}

/// Writes the status that `change` computes from the one of `item`, and then records `event`, which happened to `run`.
pub(super) async fn write(
    retry: &RetryReconciler,
    item: &WorkItem,
    run: &RunRef,
    event: Option<RetryEvent>,
    change: impl FnOnce(&WorkItemStatus, Timestamp) -> Option<WorkItemStatus>,
) -> Result<WorkItemResult, Error> {
    let written = work_items::write(&retry.context, item, change).await?;
    if let (WorkItemResult::Changed(item), Some(event)) = (&written, event) {
        record(retry, item, run, event);
    }
    Ok(written)
}

/// Counts what happened to `run`, and records it with the message of the condition in `item`.
fn record(retry: &RetryReconciler, item: &WorkItem, run: &RunRef, event: RetryEvent) {
    let (type_, reason, outcome) = event.words();
    let labels = [("kind", run.kind.into()), ("outcome", outcome)];
    retry.metrics.retries.get_or_create(&labels).inc();
    let note = match (event, condition(item)) {
        (RetryEvent::Failed, _) => failed(item, run),
        (_, Some((reason, message))) => format!("{message} ({reason})"),
        (_, None) => return,
    };
    let object = resource(retry, run.kind).map(|resource| ObjectReference {
        api_version: Some(resource.api_version),
        kind: Some(resource.kind),
        name: Some(run.name.clone()),
        namespace: item.metadata.namespace.clone(),
        uid: Some(run.uid.clone()),
        ..ObjectReference::default()
    });
    let (events, of_item) = (&retry.context.events, item.object_ref(&()));
    events.publish_related(type_, reason, ACTION, &note, (&of_item, object.as_ref()));
    if let Some(object) = object {
        events.publish(type_, reason, ACTION, &note, &object);
    }
}

/// Records why the issue source gave no answer: the run is retried nevertheless.
pub(super) fn record_unknown_source(retry: &RetryReconciler, item: &WorkItem, run: &RunRef, error: &str) {
    let note = format!("{run} is run again without knowing whether its source is closed: {error}");
    let regarding = item.object_ref(&());
    let events = &retry.context.events;
    events.publish(Warning, "SourceUnknown", ACTION, &note, &regarding);
}

fn failed(item: &WorkItem, run: &RunRef) -> String {
    let status = retry_status(item);
    let why = status.failure.map_or(String::new(), |failure| {
        format!(": {:?} failure, {}", failure.class, failure.reason)
    });
    format!("{run} failed at attempt {}{why}", status.attempt)
}

/// Reason and message of the condition about retries.
fn condition(item: &WorkItem) -> Option<(&str, &str)> {
    let condition = taskgate_policy::retry::condition(item.status.as_ref()?)?;
    Some((&condition.reason, &condition.message))
}

/// The metrics of retries. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RetryMetrics {
    /// By `kind` and `outcome`.
    retries: Family<Labels<2>, Counter>,
}

impl RetryMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        Self {
            retries: registered(registry, "retries", "Retries of failed Workloads and Tasks, by outcome"),
        }
    }
}
