//! Which queue a Job is given to: the Task decides, then the policy.

use serde_json::Value;
use taskgate_api::{Mode, kelos::Task, kueue};

use super::{
    detail::NotQueued,
    name::{Name, legal},
};
use crate::{
    metadata::Managed,
    policy::QueueRule,
    select::{Governed, Ruling, Sections, scope},
    template::{Rendering, Sees},
};

/// What is to become of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// It waits in a queue.
    Queue {
        /// The `LocalQueue`.
        queue: String,
        /// The `WorkloadPriorityClass`.
        class: Option<String>,
    },
    /// It ought to wait in one, and cannot.
    None(NotQueued, String),
}

/// The ruling about queueing: that of the queue section, or of the strongest policy where none has one. Whatever governs
/// a Task lets the Task itself ask for a queue; `queueMode: Off` does not.
pub(crate) fn ruling<'a>(sections: &Sections<'a>) -> Option<Ruling<'a, QueueRule<'a>>> {
    let own = || {
        sections.any.map(|Ruling { policy, mode, .. }| Ruling {
            further: None,
            policy,
            mode,
            rule: QueueRule::default(),
        })
    };
    sections.queue.or_else(own).filter(|ruling| ruling.mode != Mode::Off)
}

/// What the Task and `rule` say about the Job, if they say anything.
///
/// The queue is the first of: the Task's label `kueue.x-k8s.io/queue-name`, its annotation of that name, its
/// `spec.queueName` (a Kelos that adopted seed 002), the policy's `queueName`. The priority class likewise. A template sees
/// the Task as it is stored, with what policies put on it.
pub(crate) fn choose(governed: &Governed<'_>, rule: QueueRule<'_>) -> Option<Choice> {
    let task = governed.task?;
    let facts = governed.facts;
    let sees = Sees::Unmanaged(Managed::NONE);
    let mut rendering = Rendering::new(scope(governed.request, facts), sees, governed.budget);
    let mut named = |stated: Option<&str>, rule: Option<&Name>| match stated {
        Some(name) => Some(legal(name).map(|()| name.to_owned())),
        None => rule.map(|name| name.render(&mut rendering)),
    };
    let queue = named(stated_queue(task), rule.queue)?;
    if facts.kueue.manages_namespace == Some(false) {
        let message = format!(
            "Kueue does not manage namespace {} (managedJobsNamespaceSelector of its configuration): the Job runs outside \
             of any quota",
            governed.request.namespace
        );
        return Some(Choice::None(NotQueued::NamespaceNotManaged, message));
    }
    let class = named(stated(task, kueue::PRIORITY_CLASS), rule.priority_class).transpose();
    Some(match (queue, class) {
        (Ok(queue), Ok(class)) => Choice::Queue { queue, class },
        (Err(error), _) => Choice::None(NotQueued::QueueNameInvalid, format!("queue name: {error}")),
        (_, Err(error)) => Choice::None(NotQueued::QueueNameInvalid, format!("priority class: {error}")),
    })
}

/// Whether the Task `object` itself asks for a queue.
pub fn states_queue(object: &Value) -> bool {
    stated_queue(Task::of(object)).is_some()
}

fn stated_queue(task: Task<'_>) -> Option<&str> {
    let field = || {
        task.spec()?
            .get("queueName")?
            .as_str()
            .filter(|queue| !queue.is_empty())
    };
    stated(task, kueue::QUEUE_NAME).or_else(field)
}

fn stated<'a>(task: Task<'a>, key: &str) -> Option<&'a str> {
    let metadata = task.metadata();
    metadata.label(key).or_else(|| metadata.annotation(key))
}
