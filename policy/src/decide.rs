//! The decision, on one page.

use jiff::Timestamp;

use crate::{
    Decision, Governed, Kind, Memory, Operation, Phase, accounting, breaker, cancel,
    decision::{Finding, assemble},
    metadata, pitfalls, protected, queue, retry, work_item, written,
};

/// Decides about a request.
///
/// `memory` is what is known of [`Governed::item`]: nothing when there is no such item or nothing is remembered.
/// The same arguments always give the same decision.
///
/// A Task may be denied, but only by the validating phase, which sees what will be stored. A Job never is: Kelos would
/// keep its branch lock, across namespaces even (kelos T1).
pub fn decide<'m>(governed: &Governed<'_>, memory: impl Into<Memory<'m>>, now: Timestamp) -> Decision {
    let request = governed.request;
    let memory = memory.into();
    let mut findings = match (request.kind, request.phase) {
        (Kind::Task, Phase::Mutating) => mutate_task(governed),
        (Kind::Task, Phase::Validating) => validate_task(governed, memory, now),
        (Kind::Job, _) => job(governed, memory, now),
        (Kind::TaskPolicy | Kind::ClusterTaskPolicy, _) => written::findings(request, governed.facts.policies),
        (Kind::WorkItem | Kind::WorkItemStatus, _) => work_item::findings(request),
    };
    let removed = protected::findings(request, &findings, {
        let mut policies = governed.facts.policies.ranked(request.namespace);
        policies.any(|policy| policy.metadata().is_some())
    });
    findings.extend(removed);
    assemble(request.sent, request.phase, findings)
}

fn mutate_task<'a>(governed: &Governed<'a>) -> Vec<Finding<'a>> {
    let accounting = governed.task.map(|task| accounting::findings(governed, task));
    let retry = governed.task.and_then(|task| retry::findings(governed, task));
    governed
        .metadata
        .iter()
        .cloned()
        .chain(accounting.into_iter().flatten())
        .chain(retry)
        .collect()
}

fn validate_task<'a>(governed: &Governed<'a>, memory: Memory<'_>, now: Timestamp) -> Vec<Finding<'a>> {
    let Some(task) = governed.task else {
        return Vec::new();
    };
    let refused = governed
        .item()
        .and_then(|_| breaker::task_finding(governed, memory, now));
    refused.into_iter().chain(pitfalls::findings(governed, task)).collect()
}

/// A Job that must not run does not queue either: Kueue would start it.
fn job<'a>(governed: &Governed<'a>, memory: Memory<'_>, now: Timestamp) -> Vec<Finding<'a>> {
    let cancelled = cancel::job_finding(governed.facts.owner_task, governed.request.job(), now);
    if let Some(cancelled) = cancelled.filter(|_| governed.request.operation == Operation::Create) {
        return vec![cancelled];
    }
    let stopped = governed
        .item()
        .and_then(|_| breaker::job_finding(governed, memory, now));
    match stopped {
        Some(stopped) => vec![stopped],
        None if governed.request.job().is_stopped() => Vec::new(),
        None => queue::findings(governed)
            .into_iter()
            .chain(metadata::propagate(governed))
            .collect(),
    }
}
