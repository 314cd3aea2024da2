//! What was changed as a Task and its Job were created, and by whom since, as far as they tell it themselves.

use serde_json::Value;
use taskgate_api::{Mode, kelos::Task, keys, kueue, metadata::Metadata};
use taskgate_policy::{Candidate, Section};

use super::{
    scene::Scene,
    story::{Line, Topic},
};

pub(super) fn lines(scene: &Scene<'_>, task: &Value) -> Vec<Line> {
    let metadata = Metadata::of(task);
    let mut told = Vec::new();
    if let Some(item) = metadata.label(keys::WORK_ITEM) {
        told.push(format!(
            "it was counted to WorkItem {item}, with a label and a finalizer"
        ));
    }
    if let Some(ttl) = metadata.annotation(keys::TTL) {
        told.push(format!(
            "its TTL of {ttl} s was moved out of its spec: taskgate keeps it"
        ));
    }
    told.extend(given(scene, task));
    if let Some(skipped) = metadata.annotation(keys::SKIPPED) {
        told.push(format!("left out of what its policies set: {skipped}"));
    }
    if metadata.annotation(keys::PENDING).is_some() {
        told.push("some of its labels or annotations wait for what its tracker tells".to_owned());
    }
    if let Some(of) = metadata.annotation(keys::RETRY_OF) {
        told.push(format!("taskgate made it to run the one with UID {of} again"));
    }
    if let Some(job) = scene.job_of(task) {
        let job = Metadata::of(job);
        let queue = job.label(kueue::QUEUE_NAME);
        told.extend(queue.map(|queue| format!("its Job was made suspended, for LocalQueue {queue}")));
        let not_queued = job.annotation(keys::NOT_QUEUED);
        told.extend(not_queued.map(|why| format!("its Job was not queued: {why}")));
        let stopped = job.annotation(keys::STOPPED);
        told.extend(stopped.map(|why| format!("its Job was made suspended, never to run: {why}")));
    }
    told.extend(since(task));
    told.iter().map(|text| Line::new(Topic::Admission, text)).collect()
}

/// The labels and annotations that its policies set and that it has.
fn given(scene: &Scene<'_>, task: &Value) -> Vec<String> {
    let candidates = scene.policies.candidates(scene.namespace, task);
    let sets = |candidate: &Candidate<'_>| {
        let enforced = candidate
            .claim(Section::Metadata)
            .is_some_and(|claim| claim.wins && claim.mode == Mode::Enforce);
        let metadata = Metadata::of(task);
        let found = candidate.sets.iter().filter(|_| enforced).filter_map(|(place, key)| {
            let value = match *place {
                "label" => metadata.label(key),
                _ => metadata.annotation(key),
            };
            Some(format!("{place} {key}={}", value?))
        });
        let found: Vec<_> = found.collect();
        (!found.is_empty()).then(|| format!("as {} says: {}", candidate.policy, found.join(", ")))
    };
    candidates.iter().filter_map(sets).collect()
}

/// Who else wrote to it, by its managed fields: field managers, which each writer names itself.
fn since(task: &Value) -> Option<String> {
    let entries = task.pointer("/metadata/managedFields")?.as_array()?;
    let created = Task::of(task).created()?;
    let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let later = entries.iter().filter(|entry| {
        let time: Option<jiff::Timestamp> = text(entry, "time").parse().ok();
        text(entry, "subresource").is_empty() && time.is_some_and(|time| time > created)
    });
    let later: Vec<_> = later
        .map(|entry| format!("{} at {}", text(entry, "manager"), text(entry, "time")))
        .collect();
    (!later.is_empty()).then(|| format!("written to since it was created: by {}", later.join(", by ")))
}
