//! What policies add to objects that are retried: to a Task at admission, and to the successor of a Workload, which does not pass
//! admission, the labels, annotations and queue of the current policies.

use std::collections::BTreeMap;

use serde_json::Value;
use taskgate_api::{Mode, kelos::Task, keys, kueue, metadata::Metadata, task_policy::RetriedKind};

use crate::{
    decision::{Detail, Effect, Finding, Governed, NotQueued},
    kubernetes::{Edit, merge},
    matching::{PolicyScope, PolicySet, QueueName, QueueRule, Section},
    metadata::{self, Planned, Stage, Values},
    template::{Rendering, TemplateInput},
};

/// Moves the TTL of a Task without a spawner to an annotation, so that it still exists when its retry is due. Where the failure
/// section is enforced, that section moves it.
pub(crate) fn findings<'a>(governed: &Governed<'a>, task: Task<'a>) -> Option<Finding<'a>> {
    let matched = governed.sections.retry?;
    let kept = governed.sections.failure.zip(governed.identity());
    let is_kept = kept.is_some_and(|(matched, _)| matched.mode == Mode::Enforce);
    if matched.mode != Mode::Enforce || is_kept || task.spawner().is_some() || !matched.rule.covers(RetriedKind::Task) {
        return None;
    }
    let ttl = task.ttl_seconds().and_then(|ttl| i32::try_from(ttl).ok());
    let ttl = ttl.filter(|ttl| *ttl >= 0)?;
    let edits = vec![Edit::RemoveTtl, Edit::Annotation(keys::TTL.into(), ttl.to_string())];
    let detail = Detail::TtlKept { seconds: ttl };
    Some(Finding::new(Section::Retry, &matched, detail, Effect::Change(edits)))
}

/// Adds to `successor`, a Workload, what policies set: labels and annotations that it does not have, or that a policy overrides; the
/// queue and the priority class, unless it names them itself.
///
/// Foreman copies neither to its Jobs (foreman §2.4); other controllers may.
pub fn apply_sections(
    policies: &PolicySet,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    successor: &mut Value,
) {
    let input = TemplateInput {
        object: successor,
        namespace,
        namespace_labels,
        spawner: None,
        workspace: None,
        user: None,
        source_fields: None,
    };
    let scope = PolicyScope::of_input(policies, &input);
    let sections = scope.sections(successor);
    let mut values = Values::new(input, scope.managed());
    let mut planned = Planned::of(successor);
    let stage = Stage::Creation { source_readable: false };
    let found = metadata::findings(&sections.metadata, &mut values, &mut planned, stage);
    let mut edits: Vec<_> = found.iter().flat_map(Finding::planned).cloned().collect();
    if let Some(matched) = sections.queue.filter(|matched| matched.mode == Mode::Enforce) {
        edits.extend(enqueue(Metadata::of(successor), matched.rule, values.rendering()));
    }
    json_patch::merge(successor, &merge(&edits));
}

fn enqueue(metadata: Metadata<'_>, rule: QueueRule<'_>, rendering: &mut Rendering<'_>) -> Vec<Edit> {
    let named = [
        (kueue::QUEUE_NAME, rule.queue),
        (kueue::PRIORITY_CLASS, rule.priority_class),
    ];
    let missing = named
        .into_iter()
        .filter(|(key, _)| metadata.label(key).or_else(|| metadata.annotation(key)).is_none());
    let edit = |(key, name): (&str, Option<&QueueName>)| match name?.render(rendering) {
        Ok(name) => Some(Edit::Label(key.to_owned(), name)),
        Err(error) => {
            let why = NotQueued::QueueNameInvalid.annotation(&format!("{key}: {error}"));
            Some(Edit::Annotation(keys::NOT_QUEUED.to_owned(), why))
        }
    };
    missing.filter_map(edit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use serde_json::json;

    fn decorated(specs: &[Value], metadata: &Value) -> Value {
        let policies = fixtures::policies(specs.iter().cloned());
        let mut successor = json!({"metadata": {"name": "wl", "namespace": "team"}, "spec": {"intent": "fix it"}});
        json_patch::merge(&mut successor["metadata"], metadata);
        let labels = BTreeMap::from([("stage".to_owned(), "prod".to_owned())]);
        apply_sections(&policies, "team", &labels, &mut successor);
        assert_eq!(successor["spec"], json!({"intent": "fix it"}));
        successor["metadata"].clone()
    }

    #[test]
    fn a_successor_gets_the_labels_and_the_queue_of_current_policies() {
        let spec = json!({
            "queueName": "q-{{ namespace.labels.stage }}", "queuePriorityClass": "high",
            "metadata": {
                "labels": {"stage": "{{ namespace.labels.stage }}", "lane": "frontier"},
                "annotations": {"who": "{{ task.metadata.name }}"},
            },
        });
        let found = decorated(std::slice::from_ref(&spec), &json!({"labels": {"lane": "local"}}));
        assert_eq!(
            found["labels"],
            json!({"lane": "local", "stage": "prod", "kueue.x-k8s.io/queue-name": "q-prod",
                "kueue.x-k8s.io/priority-class": "high"})
        );
        assert_eq!(found["annotations"], json!({"who": "wl"}));
        let own = json!({"labels": {"kueue.x-k8s.io/queue-name": "own", "kueue.x-k8s.io/priority-class": "low"}});
        let found = decorated(&[spec], &own);
        assert_eq!(found["labels"]["kueue.x-k8s.io/queue-name"], "own");
        assert_eq!(found["labels"]["kueue.x-k8s.io/priority-class"], "low");
    }

    #[test]
    fn a_policy_that_does_not_match_or_is_not_enforced_does_nothing() {
        for spec in [
            json!({"mode": "Observe", "queueName": "q", "metadata": {"labels": {"a": "b"}}}),
            json!({"queueMode": "Warn", "queueName": "q", "metadata": {"mode": "Off", "labels": {"a": "b"}}}),
            json!({"selector": {"spawnerNames": ["fixer"]}, "queueName": "q", "metadata": {"labels": {"a": "b"}}}),
            json!({"retry": {"maxAttempts": 3}}),
        ] {
            let found = decorated(std::slice::from_ref(&spec), &json!({}));
            assert_eq!(found, json!({"name": "wl", "namespace": "team"}), "{spec}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_rendered_is_left_out_and_recorded() {
        let spec =
            json!({"queueName": "{{ task.metadata.labels.queue }}", "metadata": {"labels": {"a": "{{ item.title }}"}}});
        let found = decorated(&[spec], &json!({}));
        assert_eq!(found.get("labels"), None);
        let notes = found["annotations"].as_object().unwrap();
        assert!(
            notes[keys::NOT_QUEUED]
                .as_str()
                .unwrap()
                .starts_with("QueueNameInvalid: kueue.x-k8s.io/queue-name: ")
        );
        assert!(notes[keys::SKIPPED].as_str().unwrap().starts_with("a: "));
    }
}
