//! Queueing through Kueue (seed 002): a Job is created suspended and labelled, and Kueue starts it.

use taskgate_api::{Mode, kueue, metadata::Metadata};

use crate::{
    Detail, Phase, Section,
    decision::{Effect, Finding},
    patch::Edit,
    policy::QueueRule,
    select::{Governed, Ruling},
};

/// What the queue section does to a Job.
///
/// A Job that carries a queue label already is somebody else's choice, ours of the first pass included. Kueue's own
/// mutating webhook would suspend a labelled Job by itself; ours does not rely on Kueue being there (C14).
pub(crate) fn findings<'a>(governed: &Governed<'a>, ruling: Ruling<'a, QueueRule<'a>>) -> Vec<Finding<'a>> {
    if ruling.mode == Mode::Off {
        return Vec::new();
    }
    match governed.request.phase {
        Phase::Mutating => enqueue(governed, ruling).into_iter().collect(),
        Phase::Validating => verify(governed, ruling),
    }
}

fn enqueue<'a>(governed: &Governed<'a>, ruling: Ruling<'a, QueueRule<'a>>) -> Option<Finding<'a>> {
    let job = governed.request.job();
    if job.queue().is_some() {
        return None;
    }
    let QueueRule { queue, priority_class } = ruling.rule;
    let mut edits = vec![Edit::Suspend, Edit::Label(kueue::QUEUE_NAME.into(), queue.into())];
    if let Some(class) = priority_class.filter(|_| job.metadata().label(kueue::PRIORITY_CLASS).is_none()) {
        edits.push(Edit::Label(kueue::PRIORITY_CLASS.into(), class.into()));
    }
    let detail = Detail::Queued {
        queue: queue.to_owned(),
    };
    Some(Finding::new(Section::Queue, &ruling, detail, Effect::Change(edits)))
}

/// Looks at the Job as it will be stored: whatever ran after us may have undone our work.
fn verify<'a>(governed: &Governed<'a>, ruling: Ruling<'a, QueueRule<'a>>) -> Vec<Finding<'a>> {
    let job = governed.request.job();
    let tell = |detail| Finding::new(Section::Queue, &ruling, detail, Effect::Tell);
    let mut findings = Vec::new();
    if ruling.mode == Mode::Enforce && !(job.is_suspended() && job.queue().is_some()) {
        findings.push(tell(Detail::QueueUndone {
            queue: ruling.rule.queue.to_owned(),
        }));
    }
    let template = governed.request.object.pointer("/spec/template");
    if let Some(key) = template.and_then(|template| kueue_key(Metadata::of(template))) {
        findings.push(tell(Detail::QueueKeyInPodTemplate { key }));
    }
    findings
}

/// Kueue's keys in a pod template make Kueue refuse to start the Job, for ever (kueue §2).
fn kueue_key(template: Metadata<'_>) -> Option<String> {
    template
        .labels()
        .map(|(key, _)| key)
        .find(|key| key.starts_with(kueue::PREFIX))
        .map(ToOwned::to_owned)
}
