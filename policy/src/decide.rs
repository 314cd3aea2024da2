//! The decision, on one page.

use jiff::Timestamp;
use taskgate_api::WorkItemStatus;

use crate::{
    Decision, Governed, Kind, Phase, breaker,
    decision::{Finding, assemble},
    pitfalls, queue, written,
};

/// Decides about a request.
///
/// `memory` is what is remembered of [`Governed::item`]: `None` when there is no such item or nothing is remembered.
/// The same arguments always give the same decision.
///
/// A Task may be denied, but only by the validating phase, which sees what will be stored. A Job never is: Kelos would
/// keep its branch lock, across namespaces even (kelos T1).
pub fn decide(governed: &Governed<'_>, memory: Option<&WorkItemStatus>, now: Timestamp) -> Decision {
    let request = governed.request;
    let findings = match (request.kind, request.phase) {
        (Kind::Task, Phase::Mutating) => governed.metadata.clone(),
        (Kind::Task, Phase::Validating) => validate_task(governed, memory, now),
        (Kind::Job, _) => governed
            .sections
            .queue
            .map(|ruling| queue::findings(governed, ruling))
            .unwrap_or_default(),
        (Kind::TaskPolicy | Kind::ClusterTaskPolicy | Kind::WorkItem, _) => written::findings(request),
    };
    assemble(request.object, request.phase, findings)
}

fn validate_task<'a>(governed: &Governed<'a>, memory: Option<&WorkItemStatus>, now: Timestamp) -> Vec<Finding<'a>> {
    let Some(task) = governed.task else {
        return Vec::new();
    };
    let open = governed
        .sections
        .failure
        .zip(governed.item())
        .zip(memory)
        .and_then(|((ruling, item), memory)| breaker::finding(governed, ruling, item, memory, now));
    open.into_iter().chain(pitfalls::findings(governed, task)).collect()
}
