//! The admission review of a Task that names a queue in `spec.queueName`, where taskgate added that field to Kelos' Tasks.

use serde_json::Value;
use taskgate_api::{
    kelos_fields::KelosField,
    kueue,
    metadata::Metadata,
    moved_field::{MovedField, QUEUE_NAME},
};

use crate::{
    decision::{Detail, Effect, Finding, Governed},
    kubernetes::{Edit, is_label_value},
};

/// Moves the queue of a new Task out of its spec: to the label that Kueue and users know, unless the Task has one, and to an annotation.
pub(crate) fn task_finding(governed: &Governed<'_>) -> Option<Finding<'static>> {
    let task = governed.request.object;
    let is_ours = governed.context.kelos_fields.contains(&KelosField::TaskQueueName);
    let queue = QUEUE_NAME.in_spec(task).filter(|_| is_ours)?;
    let mut edits = Vec::from(Edit::move_field(QUEUE_NAME, task)?);
    let has_label = kueue::requested(Metadata::of(task), kueue::QUEUE_NAME).is_some();
    // A longer name is no label value: the annotation states it to the review of the Job, which reports it.
    if !has_label && is_label_value(&queue) {
        edits.push(Edit::Label(kueue::QUEUE_NAME.to_owned(), queue.clone()));
    }
    Some(Finding::queue(Detail::QueueMoved(queue), Effect::Change(edits)))
}

/// Whether the Task `object` was created with a queue in its own field. Its Job is then queued whether a policy governs it or not.
pub fn has_queue_field(object: &Value) -> bool {
    let MovedField { annotation, .. } = QUEUE_NAME;
    kueue::named(Metadata::of(object).annotation(annotation)).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use taskgate_api::keys;

    use super::*;

    #[test]
    fn the_annotation_of_the_field_counts() {
        assert!(has_queue_field(
            &json!({"metadata": {"annotations": {keys::QUEUE: "agents"}}})
        ));
        assert!(!has_queue_field(
            &json!({"metadata": {"labels": {kueue::QUEUE_NAME: "agents"}}})
        ));
    }
}
