//! Queueing through Kueue (seed 002): a Job is created suspended and labelled, and Kueue starts it. Afterwards the Job is
//! Kueue's; what becomes of it is told on its Task ([`queue_state`]).

mod choice;
mod detail;
mod name;
mod silent;
mod standing;
mod state;

use serde_json::Value;
use taskgate_api::{Mode, keys, kueue, metadata::Metadata, task_policy::QueueOnError};

pub use choice::states_queue;
use choice::{Choice, choose, ruling};
pub use detail::{NotQueued, QueueDetail};
pub(crate) use name::Name;
pub use standing::queue_state;
pub use state::{Installed, Look, QueueReason, QueueScene, QueueState};

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
pub(crate) fn findings<'a>(governed: &Governed<'a>) -> Vec<Finding<'a>> {
    let Some(ruling) = ruling(&governed.sections) else {
        return Vec::new();
    };
    let Some(choice) = choose(governed, ruling.rule) else {
        return Vec::new();
    };
    match governed.request.phase {
        Phase::Mutating => enqueue(governed, ruling, choice).into_iter().collect(),
        Phase::Validating => verify(governed, ruling, choice),
    }
}

fn enqueue<'a>(governed: &Governed<'a>, ruling: Ruling<'a, QueueRule<'a>>, choice: Choice) -> Option<Finding<'a>> {
    let job = governed.request.job();
    if job.queue().is_some() {
        return None;
    }
    let (detail, edits) = match choice {
        Choice::Queue { queue, class } => {
            let mut edits = vec![Edit::Suspend, Edit::Label(kueue::QUEUE_NAME.into(), queue.clone())];
            let class = class.filter(|_| job.metadata().label(kueue::PRIORITY_CLASS).is_none());
            edits.extend(class.map(|class| Edit::Label(kueue::PRIORITY_CLASS.into(), class)));
            (QueueDetail::Queued { queue }, edits)
        }
        Choice::None(why, message) => {
            let mut edits = vec![Edit::Annotation(keys::NOT_QUEUED.into(), why.annotation(&message))];
            let hold = why == NotQueued::QueueNameInvalid && ruling.rule.on_error == QueueOnError::Suspend;
            edits.extend(hold.then_some(Edit::Suspend));
            (QueueDetail::NotQueued { why, message }, edits)
        }
    };
    let detail = Detail::Queue(detail);
    Some(Finding::new(Section::Queue, &ruling, detail, Effect::Change(edits)))
}

/// Looks at the Job as it will be stored: whatever ran after us may have undone our work.
fn verify<'a>(governed: &Governed<'a>, ruling: Ruling<'a, QueueRule<'a>>, choice: Choice) -> Vec<Finding<'a>> {
    let job = governed.request.job();
    let mut details = Vec::new();
    let enforced = ruling.mode == Mode::Enforce;
    match choice {
        Choice::Queue { queue, class } if job.is_suspended() && job.queue() == Some(&queue) => {
            details.extend(missing(governed, queue, class));
            details.extend(without_requests(governed.request.object));
        }
        Choice::Queue { queue, .. } if enforced && job.queue().is_none_or(|label| label == queue) => {
            details.push(QueueDetail::Undone { queue });
        }
        Choice::None(why, message) if enforced && job.queue().is_none() => {
            details.push(QueueDetail::NotQueued { why, message });
        }
        Choice::Queue { .. } | Choice::None(..) => {}
    }
    let template = governed.request.object.pointer("/spec/template");
    if let Some(key) = template.and_then(|template| kueue_key(Metadata::of(template))) {
        details.push(QueueDetail::KeyInPodTemplate { key });
    }
    details
        .into_iter()
        .map(|detail| Finding::new(Section::Queue, &ruling, Detail::Queue(detail), Effect::Tell))
        .collect()
}

/// What Kueue says nothing about when it is missing (kueue §5).
fn missing(governed: &Governed<'_>, queue: String, class: Option<String>) -> Option<QueueDetail> {
    let known = governed.facts.kueue;
    if known.installed == Some(false) {
        return Some(QueueDetail::KueueMissing);
    }
    if known.local_queue == Some(false) {
        let namespace = governed.request.namespace.to_owned();
        return Some(QueueDetail::LocalQueueMissing { queue, namespace });
    }
    let class = class.filter(|_| known.priority_class == Some(false))?;
    Some(QueueDetail::PriorityClassMissing { class })
}

/// Init containers run before the others, and Kueue counts the larger of both: what matters is the main ones.
fn without_requests(job: &Value) -> Option<QueueDetail> {
    let containers = job.pointer("/spec/template/spec/containers")?.as_array()?;
    let requests = |container: &&Value| {
        ["/resources/requests", "/resources/limits"].iter().any(|path| {
            container
                .pointer(path)
                .and_then(Value::as_object)
                .is_some_and(|map| !map.is_empty())
        })
    };
    let name = |container: &Value| Some(container.get("name")?.as_str()?.to_owned());
    let bare: Vec<_> = containers
        .iter()
        .filter(|container| !requests(container))
        .filter_map(name)
        .collect();
    (!bare.is_empty()).then_some(QueueDetail::RequestsMissing { containers: bare })
}

/// Kueue's keys in a pod template make Kueue refuse to start the Job, for ever (kueue §2).
fn kueue_key(template: Metadata<'_>) -> Option<String> {
    template
        .labels()
        .map(|(key, _)| key)
        .find(|key| key.starts_with(kueue::PREFIX))
        .map(ToOwned::to_owned)
}
