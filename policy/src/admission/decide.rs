//! The decision, on one page.

use jiff::Timestamp;

use super::{policy_validation, reserved_keys, warnings, work_item};
use crate::{
    breaker::{self, ItemSnapshot},
    cancellation,
    decision::{Decision, Finding, Governed, Kind, Operation, Phase, assemble},
    metadata, queueing, retry,
};

/// Decides about a request.
///
/// `item` is the status of [`Governed::item`]: empty when there is no such item or no `WorkItem`.
/// The same arguments always give the same decision.
///
/// A Task may be denied, but only by the validating phase, which sees the final object. A Job is never denied: Kelos would keep
/// its branch lock.
pub fn decide<'m>(governed: &Governed<'_>, item: impl Into<ItemSnapshot<'m>>, now: Timestamp) -> Decision {
    let request = governed.request;
    let item = item.into();
    let mut findings = match (request.kind, request.phase) {
        (Kind::Task, Phase::Mutating) => mutate_task(governed),
        (Kind::Task, Phase::Validating) => validate_task(governed, item, now),
        (Kind::Job, _) => job(governed, item, now),
        (Kind::TaskPolicy | Kind::ClusterTaskPolicy, _) => {
            policy_validation::findings(request, governed.context.policies)
        }
        // Its fields are reviewed apart.
        (Kind::TaskSpawner, _) => Vec::new(),
        (Kind::WorkItem | Kind::WorkItemStatus, _) => work_item::findings(request),
    };
    let removed = reserved_keys::findings(request, &findings, {
        // The fields of a TaskSpawner set no metadata.
        let mut policies = governed.context.policies.ranked(request.namespace, None);
        policies.any(|policy| policy.metadata().is_some())
    });
    findings.extend(removed);
    assemble(request.sent, request.phase, findings)
}

fn mutate_task<'a>(governed: &Governed<'a>) -> Vec<Finding<'a>> {
    let accounting = governed.task.map(|_| breaker::accounting_findings(governed));
    let retry = governed.task.and_then(|task| retry::findings(governed, task));
    governed
        .metadata
        .iter()
        .cloned()
        .chain(accounting.into_iter().flatten())
        .chain(queueing::task_finding(governed))
        .chain(retry)
        .collect()
}

fn validate_task<'a>(governed: &Governed<'a>, item: ItemSnapshot<'_>, now: Timestamp) -> Vec<Finding<'a>> {
    let Some(task) = governed.task else {
        return Vec::new();
    };
    let refused = governed.item().and_then(|_| breaker::task_finding(governed, item, now));
    refused.into_iter().chain(warnings::findings(governed, task)).collect()
}

/// A Job that must not run does not queue either: Kueue would start it.
fn job<'a>(governed: &Governed<'a>, item: ItemSnapshot<'_>, now: Timestamp) -> Vec<Finding<'a>> {
    let cancelled = cancellation::job_finding(governed.context.owner_task, governed.request.job(), now);
    if let Some(cancelled) = cancelled.filter(|_| governed.request.operation == Operation::Create) {
        return vec![cancelled];
    }
    let stopped = governed.item().and_then(|_| breaker::job_finding(governed, item, now));
    match stopped {
        Some(stopped) => vec![stopped],
        None if governed.request.job().is_stopped() => Vec::new(),
        None => queueing::findings(governed)
            .into_iter()
            .chain(metadata::propagate(governed))
            .collect(),
    }
}
