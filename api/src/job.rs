//! A view of a `batch/v1` Job.

use serde_json::Value;

use crate::{condition::Condition, kelos, keys, kueue, metadata::Owner, view::view};

view! {
    /// Borrowed view of a Job.
    Job
}

impl<'a> Job<'a> {
    /// The Kelos Task that the Job runs for, by controller reference. Spawner runs carry Kelos' labels too, but have no
    /// such owner.
    pub fn task(self) -> Option<Owner<'a>> {
        self.metadata()
            .controller()
            .filter(|owner| owner.is(kelos::GROUP, "Task"))
    }

    /// `spec.suspend`.
    pub fn is_suspended(self) -> bool {
        self.0.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true)
    }

    /// Whether taskgate decided that the Job must not run.
    pub fn is_stopped(self) -> bool {
        self.metadata().annotation(keys::STOPPED).is_some()
    }

    /// Whether it has come to an end, good or bad.
    pub fn has_ended(self) -> bool {
        ["Complete", "Failed"]
            .iter()
            .any(|end| self.condition(end).is_some_and(Condition::is_true))
    }

    /// Kueue's priority label. An empty one names no class, as for Kueue.
    pub fn priority_class(self) -> Option<&'a str> {
        kueue::named(self.metadata().label(kueue::PRIORITY_CLASS))
    }

    /// Kueue's queue label. An empty one names no queue, as for Kueue.
    pub fn queue(self) -> Option<&'a str> {
        kueue::named(self.metadata().label(kueue::QUEUE_NAME))
    }
}
