//! What people and metrics are told of a retry: an Event on the `WorkItem` and on the object, in the words of the condition.
//! An Event is an object of its own; the failed object is not written to.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::EventType;
use taskgate_api::{WorkItem, retry_status::RunRef};

use super::{look::resource, memory};
use crate::{context::Context, events::publish};

/// What `action` says of all of them.
const ACTION: &str = "Retry";

/// What happened. A closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// A run failed.
    Failed,
    /// It is to be run again.
    Planned,
    /// The API server refuses the successor.
    Refused,
    /// The predecessor was deleted.
    Deleted,
    /// Something holds the retry up.
    Blocked,
    /// The successor is there.
    Recreated,
    /// There is no retry, for this reason.
    GivenUp(&'static str),
    /// The retry was ended, for this reason.
    Stopped(&'static str),
    /// The count starts over, or the story has ended.
    Forgotten,
}

impl Happened {
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
            Self::Stopped(_) | Self::Forgotten => "RetryEnded",
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
            Self::Forgotten => "forgotten",
            Self::GivenUp(reason) | Self::Stopped(reason) => match reason {
                "MaxAttemptsReached" => "max_attempts",
                "MaxInfrastructureFailuresReached" => "max_infrastructure_failures",
                "NeedsHuman" => "needs_human",
                "SourceClosed" => "source_closed",
                "WouldRetry" => "would_retry",
                "DeletedBySomebodyElse" => "deleted_by_somebody_else",
                "ReplacedBySomebodyElse" => "replaced_by_somebody_else",
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

/// Counts what happened to `run`, and tells it in the words that stand in `item` now.
pub(super) async fn tell(context: &Context, item: &WorkItem, run: &RunRef, happened: Happened) {
    context.metrics.retry.count(run.kind, happened.outcome());
    let note = match (happened, memory::said(item)) {
        (Happened::Failed, _) => failed(item, run),
        (_, Some((reason, message))) => format!("{message} ({reason})"),
        (_, None) => return,
    };
    let type_ = || {
        if happened.is_warning() {
            EventType::Warning
        } else {
            EventType::Normal
        }
    };
    let namespace = item.metadata.namespace.clone();
    let object = resource(context, run.kind).map(|resource| ObjectReference {
        api_version: Some(resource.api_version),
        kind: Some(resource.kind),
        name: Some(run.name.clone()),
        namespace,
        uid: Some(run.uid.clone()),
        ..ObjectReference::default()
    });
    for regarding in [Some(memory::reference(item)), object].into_iter().flatten() {
        publish(context, type_(), happened.reason(), ACTION, &note, &regarding).await;
    }
}

/// Tells why the tracker gave no answer: the run is repeated as ever.
pub(super) async fn tell_unknown(context: &Context, item: &WorkItem, run: &RunRef, trouble: &str) {
    let note = format!(
        "{} {} is run again without knowing whether its source is closed: {trouble}",
        run.kind.as_str(),
        run.name
    );
    let regarding = memory::reference(item);
    publish(context, EventType::Warning, "SourceUnknown", ACTION, &note, &regarding).await;
}

fn failed(item: &WorkItem, run: &RunRef) -> String {
    let ledger = memory::ledger_of(item);
    let why = ledger.failure.map_or(String::new(), |failure| {
        format!(": {:?} failure, {}", failure.class, failure.reason)
    });
    format!(
        "{} {} failed at attempt {}{why}",
        run.kind.as_str(),
        run.name,
        ledger.attempt
    )
}
