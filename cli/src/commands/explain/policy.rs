//! The policies that govern an object, and why those; and what admission changed because of them.

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::{Mode, job::Job, kelos::Task, keys, metadata::Metadata, task_policy::RetriedKind};
use taskgate_policy::{Candidate, Claim, PolicyName, Section, retry::Retried};

use super::{
    explanation::{Line, Topic},
    input::ExplainContext,
};
use crate::commands::snapshot::{Collection, ReadError};

/// How many policies are named that do not select the object.
const NAMED: usize = 10;

/// The sections that govern Tasks, in the order of the lines.
const SECTIONS: [Section; 4] = [
    Section::FailurePolicy,
    Section::Cancellation,
    Section::Queue,
    Section::Metadata,
];

/// A line for each section that governs the Task `task`, and for each policy that does not.
pub(super) fn of_task(context: &ExplainContext<'_>, task: &Value) -> Vec<Line> {
    lines(context, task, &SECTIONS, RetriedKind::Task)
}

/// The same for Foreman's Workload `workload`, for which a policy has only a retry section.
pub(super) fn of_workload(context: &ExplainContext<'_>, workload: &Value) -> Vec<Line> {
    lines(context, workload, &[], RetriedKind::Workload)
}

fn lines(context: &ExplainContext<'_>, object: &Value, sections: &[Section], kind: RetriedKind) -> Vec<Line> {
    let line = |text: &str| Line::new(Topic::Policy, text);
    if let Some(reason) = &context.policies.unknown {
        return vec![line(&format!("the policies that govern it are not known: {reason}"))];
    }
    if context.error(Collection::Policies) == Some(&ReadError::Absent) {
        return vec![line(
            "none: taskgate is not installed, the API server does not have its kinds",
        )];
    }
    if context.policies.excludes(context.namespace) {
        let (namespace, key, disabled) = (context.namespace, keys::ADMISSION, keys::ADMISSION_DISABLED);
        return vec![line(&format!(
            "none: the webhooks exclude namespace {namespace}, which is a system's or labelled {key}={disabled}"
        ))];
    }
    let candidates = context.policies.candidates(context.namespace, object);
    let sections = sections
        .iter()
        .filter_map(|section| section_text(*section, &candidates));
    let retried = Retried::of(kind, object);
    let retry = retried.and_then(|retried| retry_text(context, retried, &candidates));
    let mut texts: Vec<_> = sections.chain(retry).collect();
    if texts.is_empty() {
        texts.push("none governs it".to_owned());
    }
    let mismatches: Vec<_> = candidates
        .iter()
        .filter_map(|other| Some(format!("not {}: {}", other.policy, other.mismatch?)))
        .collect();
    let more = mismatches.len().saturating_sub(NAMED);
    texts.extend(mismatches.into_iter().take(NAMED));
    if more > 0 {
        texts.push(format!("nor {more} more policies, which do not select it"));
    }
    let spawner = Task::of(object).spawner();
    // The fields of a spawner concern no Task of another one.
    let concerns = |policy: &PolicyName| match policy {
        PolicyName::Spawner { name, .. } => spawner == Some(name.as_str()),
        PolicyName::Namespaced { .. } | PolicyName::Cluster { .. } => true,
    };
    texts.extend(context.policies.all.iter().filter_map(|policy| {
        let problem = policy.problem().filter(|_| concerns(&policy.name))?;
        Some(format!("not {}: it cannot be applied: {problem}", policy.name))
    }));
    texts.iter().map(|text| line(text)).collect()
}

/// The policy whose section wins, and the others that have it.
fn section_text(section: Section, candidates: &[Candidate<'_>]) -> Option<String> {
    let claims: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.mismatch.is_none())
        .filter_map(|candidate| Some((candidate, candidate.claim(section)?)))
        .collect();
    let (winner, claim) = claims.iter().find(|(_, claim)| claim.wins)?;
    let others = claims.iter().filter(|(other, _)| other.policy != winner.policy);
    let (merged, beaten): (Vec<_>, Vec<_>) = others.partition(|(_, claim)| claim.wins);
    let list = |claims: &[&(&Candidate<'_>, Claim)]| {
        let ranked = |candidate: &Candidate<'_>| match candidate.policy {
            PolicyName::Spawner { .. } => candidate.policy.to_string(),
            policy => format!("{policy} (priority {})", candidate.priority),
        };
        let listed: Vec<_> = claims.iter().map(|(candidate, _)| ranked(candidate)).collect();
        listed.join(", ")
    };
    let mut reasons = Vec::new();
    if winner.enforced {
        reasons.push("enforced".to_owned());
    } else if let PolicyName::Spawner { .. } = winner.policy {
        reasons.push("the spawner's own field".to_owned());
    } else if merged.is_empty() && beaten.is_empty() {
        reasons.push("no other policy with this section selects it".to_owned());
    } else {
        reasons.push(format!("priority {}", winner.priority));
    }
    if !merged.is_empty() {
        reasons.push(format!("merged key by key with {}", list(&merged)));
    }
    if !beaten.is_empty() {
        let mut others = beaten.iter();
        let is_policy = |candidate: &Candidate<'_>| !matches!(candidate.policy, PolicyName::Spawner { .. });
        let is_tie = |other: &Candidate<'_>| (other.enforced, other.priority) == (winner.enforced, winner.priority);
        let tie = others.any(|(other, _)| is_tie(other) && is_policy(other) && is_policy(winner));
        let rule = if tie {
            "; of equals a TaskPolicy, then the first name"
        } else {
            ""
        };
        reasons.push(format!("before {}{rule}", list(&beaten)));
    }
    if let Some((other, _)) = beaten.iter().find(|(_, claim)| claim.tightens) {
        let other = other.policy;
        reasons.push(format!("of whose limits and of those of {other} the stricter apply"));
    }
    let off = if claim.mode == Mode::Off {
        ", so it does nothing"
    } else {
        ""
    };
    let (policy, mode) = (winner.policy, claim.mode);
    Some(format!("{section} by {policy} ({mode:?}{off}): {}", reasons.join(", ")))
}

/// The retry section of an object that no spawner creates again.
fn retry_text(context: &ExplainContext<'_>, object: Retried<'_>, candidates: &[Candidate<'_>]) -> Option<String> {
    let text = section_text(Section::Retry, candidates)?;
    if context.policies.retry(context.namespace, object).is_some() || text.contains("(Off") {
        return Some(text);
    }
    let kind = object.kind();
    Some(format!("{text}; it does not retry any {kind} (spec.retry.kinds)"))
}

/// What admission changed when a Task and its Job were created, and later writes, from the objects themselves.
pub(super) fn admission(context: &ExplainContext<'_>, task: &Value) -> Vec<Line> {
    let metadata = Metadata::of(task);
    let annotation = |key: &str| metadata.annotation(key);
    let mut texts = Vec::new();
    if let Some(item) = metadata.label(keys::WORK_ITEM) {
        texts.push(format!(
            "it belongs to WorkItem {item}, by a label, and has a finalizer"
        ));
    }
    if let Some(ttl) = annotation(keys::TTL) {
        texts.push(format!("its TTL of {ttl} s was moved from its spec to an annotation"));
    }
    texts.extend(set_by_policies(context, task));
    if let Some(skipped) = annotation(keys::SKIPPED) {
        texts.push(format!("left out of what its policies set: {skipped}"));
    }
    if annotation(keys::PENDING).is_some() {
        texts.push("some of its labels or annotations wait for its issue source".to_owned());
    }
    texts.extend(annotation(keys::RETRY_OF).map(retry_of));
    if let Some(job) = context.job_of(task) {
        let queue = Job::of(job).queue();
        let job = Metadata::of(job);
        texts.extend(queue.map(|queue| format!("its Job was created suspended, for LocalQueue {queue}")));
        let not_queued = job.annotation(keys::NOT_QUEUED);
        texts.extend(not_queued.map(|reason| format!("its Job was not queued: {reason}")));
        let stopped = job.annotation(keys::STOPPED);
        texts.extend(stopped.map(|reason| format!("its Job was created suspended, never to run: {reason}")));
    }
    texts.extend(later_writes(task));
    texts.iter().map(|text| Line::new(Topic::Admission, text)).collect()
}

/// The successor of a failed run.
pub(super) fn retry_of(uid: &str) -> String {
    format!("taskgate created it as the retry of the one with UID {uid}")
}

/// The labels and annotations that policies set and that the Task has.
fn set_by_policies(context: &ExplainContext<'_>, task: &Value) -> Vec<String> {
    let metadata = Metadata::of(task);
    let candidates = context.policies.candidates(context.namespace, task);
    let enforced = candidates.iter().filter(|candidate| {
        let claim = candidate.claim(Section::Metadata);
        claim.is_some_and(|claim| claim.wins && claim.mode == Mode::Enforce)
    });
    let set = enforced.filter_map(|candidate| {
        let found = candidate.sets.iter().filter_map(|(place, key)| {
            let value = match *place {
                "label" => metadata.label(key),
                _ => metadata.annotation(key),
            };
            Some(format!("{place} {key}={}", value?))
        });
        let found: Vec<_> = found.collect();
        (!found.is_empty()).then(|| format!("set by {}: {}", candidate.policy, found.join(", ")))
    });
    set.collect()
}

/// The field managers that wrote to the Task after it was created. Each writer chooses its name.
fn later_writes(task: &Value) -> Option<String> {
    let entries = task.pointer("/metadata/managedFields")?.as_array()?;
    let created = Task::of(task).created()?;
    let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let later = entries.iter().filter(|entry| {
        let time: Option<Timestamp> = text(entry, "time").parse().ok();
        text(entry, "subresource").is_empty() && time.is_some_and(|time| time > created)
    });
    let later: Vec<_> = later
        .map(|entry| format!("{} at {}", text(entry, "manager"), text(entry, "time")))
        .collect();
    (!later.is_empty()).then(|| format!("written after it was created: by {}", later.join(", by ")))
}
