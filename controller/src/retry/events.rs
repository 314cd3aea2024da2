//! The Events and metrics of a retry. An Event is recorded on the `WorkItem` and on the object, in the words of the condition; the
//! failed object itself is not written.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource as _, runtime::events::EventType};
use taskgate_api::{WorkItem, retry_status::RunRef};

use super::{RetryReconciler, reads::resource};
use crate::work_items::retry_status;

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
    GivenUp(&'static str),
    /// The retry was ended, for this reason.
    Stopped(&'static str),
    /// The object of the failed run was deleted, and not by taskgate.
    RunDeleted,
}

impl RetryEvent {
    /// The Event's reason.
    fn reason(self) -> &'static str {
        match self {
            Self::Failed => "RunFailed",
            Self::Planned => "RetryPlanned",
            Self::Refused => "RetryRefused",
            Self::Deleted => "RetryDeleted",
            Self::Blocked => "RetryBlocked",
            Self::Recreated => "Retried",
            Self::GivenUp("WouldRetry") => "WouldRetry",
            Self::GivenUp(_) => "RetryGivenUp",
            Self::Stopped(_) | Self::RunDeleted => "RetryEnded",
        }
    }

    fn outcome(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Planned => "planned",
            Self::Refused => "refused",
            Self::Deleted => "deleted",
            Self::Blocked => "blocked",
            Self::Recreated => "recreated",
            Self::RunDeleted => "run_deleted",
            Self::GivenUp(reason) | Self::Stopped(reason) => match reason {
                "MaxAttemptsReached" => "max_attempts",
                "MaxInfrastructureFailuresReached" => "max_infrastructure_failures",
                "NeedsHuman" => "needs_human",
                "SourceClosed" => "source_closed",
                "WouldRetry" => "would_retry",
                "DeletedExternally" => "deleted_externally",
                "ReplacedExternally" => "replaced_externally",
                "NotFailedAnyMore" => "not_failed_any_more",
                "RetryInvalid" => "retry_invalid",
                _ => "policy_gone",
            },
        }
    }

    fn is_warning(self) -> bool {
        matches!(self, Self::Failed | Self::Refused | Self::Blocked | Self::GivenUp(_))
    }
}

/// Counts what happened to `run`, and records it with the message of the condition in `item`.
pub(super) fn record(retry: &RetryReconciler, item: &WorkItem, run: &RunRef, event: RetryEvent) {
    retry.metrics.count(run.kind, event.outcome());
    let note = match (event, condition(item)) {
        (RetryEvent::Failed, _) => failed(item, run),
        (_, Some((reason, message))) => format!("{message} ({reason})"),
        (_, None) => return,
    };
    let type_ = || {
        if event.is_warning() {
            EventType::Warning
        } else {
            EventType::Normal
        }
    };
    let namespace = item.metadata.namespace.clone();
    let object = resource(retry, run.kind).map(|resource| ObjectReference {
        api_version: Some(resource.api_version),
        kind: Some(resource.kind),
        name: Some(run.name.clone()),
        namespace,
        uid: Some(run.uid.clone()),
        ..ObjectReference::default()
    });
    for regarding in [Some(item.object_ref(&())), object].into_iter().flatten() {
        let events = &retry.context.events;
        events.publish(type_(), event.reason(), ACTION, &note, &regarding);
    }
}

/// Records why the issue source gave no answer: the run is retried nevertheless.
pub(super) fn record_unknown_source(retry: &RetryReconciler, item: &WorkItem, run: &RunRef, error: &str) {
    let note = format!(
        "{} {} is run again without knowing whether its source is closed: {error}",
        run.kind.as_str(),
        run.name
    );
    let regarding = item.object_ref(&());
    let events = &retry.context.events;
    events.publish(EventType::Warning, "SourceUnknown", ACTION, &note, &regarding);
}

fn failed(item: &WorkItem, run: &RunRef) -> String {
    let status = retry_status(item);
    let why = status.failure.map_or(String::new(), |failure| {
        format!(": {:?} failure, {}", failure.class, failure.reason)
    });
    format!(
        "{} {} failed at attempt {}{why}",
        run.kind.as_str(),
        run.name,
        status.attempt
    )
}

/// Reason and message of the condition about retries.
fn condition(item: &WorkItem) -> Option<(&str, &str)> {
    let condition = taskgate_policy::retry::condition(item.status.as_ref()?)?;
    Some((&condition.reason, &condition.message))
}
