//! The admission review of a Job: whether it is queued, and in which queue.

use std::collections::BTreeSet;

use serde_json::Value;
use taskgate_api::{Mode, kelos::Task, keys, kueue, metadata::Metadata};

use super::has_queue_field;
use crate::{
    decision::{Detail, Effect, Finding, Governed, NotQueued, QueueDetail},
    kubernetes::Edit,
    matching::{QueueName, QueueRule, Section, SectionMatch, Sections, legal_queue_name},
    template::{Managed, Rendering, Sees},
};

/// The findings of the queue section about a Job: its queue, and warnings of what will keep it waiting.
///
/// A Job that has a queue label already is left unchanged: a user set the label, or the first pass did. Kueue's own webhook would
/// suspend a labelled Job, but Kueue may not be installed.
pub(crate) fn findings<'a>(governed: &Governed<'a>) -> Vec<Finding<'a>> {
    let Some(source) = QueueSource::of(governed) else {
        return Vec::new();
    };
    let Some(choice) = choose(governed, source.rule()) else {
        return Vec::new();
    };
    let mut findings: Vec<_> = enqueue(governed, source, &choice).into_iter().collect();
    let warnings = warnings(governed, source.mode(), choice).into_iter();
    findings.extend(warnings.map(|detail| source.finding(detail, Effect::Warn)));
    findings
}

/// Why a Job is queued.
#[derive(Clone, Copy, Debug)]
enum QueueSource<'a> {
    /// A policy applies.
    Policy(SectionMatch<'a, QueueRule<'a>>),
    /// None does, and the Task has a queue in its own field.
    Task,
}

impl<'a> QueueSource<'a> {
    /// A Task's own field is more specific than a policy that switches the section off, but for an enforced one.
    fn of(governed: &Governed<'a>) -> Option<Self> {
        let is_off = governed
            .sections
            .queue
            .is_some_and(|matched| matched.policy.is_enforced());
        let has_field = || !is_off && has_queue_field(governed.request.task_object(governed.context));
        let policy = section(&governed.sections).map(Self::Policy);
        policy.or_else(|| has_field().then_some(Self::Task))
    }

    fn rule(self) -> QueueRule<'a> {
        match self {
            Self::Policy(matched) => matched.rule,
            Self::Task => QueueRule::default(),
        }
    }

    fn mode(self) -> Mode {
        match self {
            Self::Policy(matched) => matched.mode,
            Self::Task => Mode::Enforce,
        }
    }

    fn finding(self, detail: QueueDetail, effect: Effect) -> Finding<'a> {
        let detail = Detail::Queue(detail);
        match self {
            Self::Policy(matched) => Finding::new(Section::Queue, &matched, detail, effect),
            Self::Task => Finding::queue(detail, effect),
        }
    }
}

fn enqueue<'a>(governed: &Governed<'a>, source: QueueSource<'a>, choice: &Choice) -> Option<Finding<'a>> {
    let job = governed.request.job();
    if job.queue().is_some() {
        return None;
    }
    let (detail, edits) = match choice {
        Choice::Queue { queue, class } => {
            let mut edits = vec![Edit::Suspend, Edit::Label(kueue::QUEUE_NAME.into(), queue.clone())];
            let class = class.as_ref().filter(|_| job.priority_class().is_none());
            edits.extend(class.map(|class| Edit::Label(kueue::PRIORITY_CLASS.into(), class.clone())));
            (QueueDetail::Queued { queue: queue.clone() }, edits)
        }
        Choice::None(why, message) => {
            let mut edits = vec![Edit::Annotation(keys::NOT_QUEUED.into(), why.annotation(message))];
            let suspend = *why == NotQueued::QueueNameInvalid && source.rule().suspends_on_error();
            edits.extend(suspend.then_some(Edit::Suspend));
            let (why, message) = (*why, message.clone());
            (QueueDetail::NotQueued { why, message }, edits)
        }
    };
    Some(source.finding(detail, Effect::Change(edits)))
}

/// The warnings for a Job that waits in the chosen queue, by this review or already, or cannot; and for one that Kueue refuses.
///
/// In another mode than `Enforce`, the change itself is a warning.
fn warnings(governed: &Governed<'_>, mode: Mode, choice: Choice) -> Vec<QueueDetail> {
    let job = governed.request.job();
    let enforced = mode == Mode::Enforce;
    let mut details = Vec::new();
    match choice {
        Choice::Queue { queue, class } => {
            let is_queued = match job.queue() {
                None => enforced,
                Some(label) => label == queue && job.is_suspended(),
            };
            if is_queued {
                details.extend(missing(governed, queue, class));
                details.extend(without_requests(governed.request.object));
            }
        }
        Choice::None(why, message) if enforced && job.queue().is_none() => {
            details.push(QueueDetail::NotQueued { why, message });
        }
        Choice::None(..) => {}
    }
    let template = governed.request.object.pointer("/spec/template");
    let key = template.and_then(|template| kueue_key(Metadata::of(template)));
    details.extend(key.map(|key| QueueDetail::KeyInPodTemplate { key }));
    details
}

/// Missing objects that Kueue does not report (kueue §5).
fn missing(governed: &Governed<'_>, queue: String, class: Option<String>) -> Option<QueueDetail> {
    let known = governed.context.kueue;
    let lacks =
        |names: &Option<BTreeSet<String>>, name: &String| names.as_ref().is_some_and(|names| !names.contains(name));
    if known.installed == Some(false) {
        return Some(QueueDetail::KueueMissing);
    }
    if lacks(&known.local_queues, &queue) {
        let namespace = governed.request.namespace.to_owned();
        return Some(QueueDetail::LocalQueueMissing { queue, namespace });
    }
    let own = governed.request.job().priority_class().map(ToOwned::to_owned);
    let class = own.or(class).filter(|class| lacks(&known.priority_classes, class))?;
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

/// The queue of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// It waits in a queue.
    Queue {
        /// The `LocalQueue`.
        queue: String,
        /// The `WorkloadPriorityClass`.
        class: Option<String>,
    },
    /// It should wait in a queue, and cannot.
    None(NotQueued, String),
}

/// The queue section that applies, or the strongest policy where none has one: any policy lets the Task itself name a queue;
/// `queueMode: Off` does not.
fn section<'a>(sections: &Sections<'a>) -> Option<SectionMatch<'a, QueueRule<'a>>> {
    let own = || sections.any.map(|matched| matched.with_rule(QueueRule::default()));
    sections.queue.or_else(own).filter(|matched| matched.mode != Mode::Off)
}

/// The queue of the Job by the Task and `rule`, if one of them names one.
///
/// The queue is the first of: the Task's label `kueue.x-k8s.io/queue-name`, its annotation of that name, its
/// `spec.queueName` (of a Kelos that has adopted queueing, or as admission moved it to an annotation), the policy's `queueName`; a blank one is as good as none. The priority
/// class likewise. A template sees the Task as it is stored, with what policies put on it.
fn choose(governed: &Governed<'_>, rule: QueueRule<'_>) -> Option<Choice> {
    let task = governed.task?;
    let sees = Sees::Unmanaged(Managed::NONE);
    let mut rendering = Rendering::new(governed.request.template_input(governed.context), sees, governed.budget);
    let mut named = |stated: Option<&str>, rule: Option<&QueueName>| match stated {
        Some(name) => Some(legal_queue_name(name).map(|()| name.to_owned())),
        None => rule.map(|name| name.render(&mut rendering)),
    };
    let queue = named(stated_queue(task), rule.queue)?;
    if governed.context.kueue.manages_namespace == Some(false) {
        let message = format!(
            "Kueue does not manage namespace {} (managedJobsNamespaceSelector of its configuration): the Job runs outside \
             of any quota",
            governed.request.namespace
        );
        return Some(Choice::None(NotQueued::NamespaceNotManaged, message));
    }
    // Kueue would suspend the Job in a namespace that it does not manage, and never start it.
    if governed.context.kueue.config_unreadable {
        let message = format!(
            "Kueue's configuration cannot be read (taskgate doctor shows why), so whether Kueue manages namespace {} is \
             unknown: the Job runs outside of any quota",
            governed.request.namespace
        );
        return Some(Choice::None(NotQueued::KueueConfigUnreadable, message));
    }
    let class = kueue::requested(task.metadata(), kueue::PRIORITY_CLASS);
    let class = named(class, rule.priority_class).transpose();
    Some(match (queue, class) {
        (Ok(queue), Ok(class)) => Choice::Queue { queue, class },
        (Err(error), _) => Choice::None(NotQueued::QueueNameInvalid, format!("queue name: {error}")),
        (_, Err(error)) => Choice::None(NotQueued::QueueNameInvalid, format!("priority class: {error}")),
    })
}

/// Whether the Task `object` itself names a queue.
pub fn requests_queue(object: &Value) -> bool {
    stated_queue(Task::of(object)).is_some()
}

fn stated_queue(task: Task<'_>) -> Option<&str> {
    let field = || kueue::named(task.spec()?.get("queueName")?.as_str());
    let moved = || kueue::named(task.metadata().annotation(keys::QUEUE));
    kueue::requested(task.metadata(), kueue::QUEUE_NAME)
        .or_else(field)
        .or_else(moved)
}
