//! What follows from a Task's labels and annotations after its creation: those that need the issue source are set once it was read,
//! and Job and pods get what the policy propagates.

use serde_json::{Value, json};
use taskgate_api::{Mode, job::Job, kelos::Task, keys, metadata::Metadata, task_policy::PropagationTarget};

use super::{
    Pending, Planned,
    findings::{Stage, Values, findings},
};
use crate::{
    decision::{Detail, Effect, Finding, Governed},
    kubernetes::{Edit, KeyKind, merge},
    matching::{MetadataRule, PolicyScope, PolicySet, Section, SectionMatch, SourceKey},
    template::TemplateInput,
};

/// The labels and annotations that the controller sets on a Task once its issue source was read.
#[derive(Clone, Debug, PartialEq)]
pub struct LateMetadata {
    /// A merge patch of its metadata.
    pub change: Value,
    /// The values that were left out, for an Event.
    pub left_out: Option<String>,
}

/// Whether taskgate can read the item of the Task of `input` at its issue source.
pub(crate) fn has_readable_source(input: &TemplateInput<'_>) -> bool {
    input.spawner.is_some_and(|spawner| spawner.has_issue_source) && has_number(input)
}

pub(super) fn has_number(input: &TemplateInput<'_>) -> bool {
    SourceKey::of(input.namespace, Task::of(input.object)).is_some_and(|key| key.number().is_some())
}

/// The labels and annotations that the Task of `input` waits for, now that `input.source_fields` is known. They are made once:
/// what cannot be made now is left out.
///
/// The Task's creator is not known any more.
pub fn fill(policies: &PolicySet, input: &TemplateInput<'_>) -> LateMetadata {
    let pending = Pending::of(input.object);
    let sections = PolicyScope::of_input(policies, input).sections(input.object);
    let mut values = Values::new(*input, policies.managed(input.namespace));
    let mut planned = Planned::of(input.object);
    let found = findings(
        &sections.metadata,
        &mut values,
        &mut planned,
        Stage::SourceRead(&pending),
    );
    let mut edits: Vec<_> = found.iter().flat_map(Finding::planned).cloned().collect();
    let left_out = edits
        .iter()
        .find_map(|edit| edit.value(KeyKind::Annotation, keys::SKIPPED));
    let left_out = left_out.map(ToOwned::to_owned);
    let copied = sections.metadata.iter().any(|matched| {
        let rule = matched.rule;
        let reaches = [PropagationTarget::Job, PropagationTarget::Pod].map(|target| rule.reaches(target));
        matched.mode == Mode::Enforce && reaches.contains(&true) && rule.entries.iter().any(|entry| pending.has(entry))
    });
    let rest = pending.made(copied);
    edits.push(if rest == Pending::default() {
        Edit::RemoveAnnotation(keys::PENDING.into())
    } else {
        Edit::Annotation(keys::PENDING.into(), rest.to_string())
    });
    LateMetadata {
        change: merge(&edits)["metadata"].take(),
        left_out,
    }
}

/// What the Job of the Task of `input` gets of the Task's labels and annotations: the same as if it were made now. A merge
/// patch; `None` if it has them.
///
/// Pods get them through the Job's pod template, and that is the API server's to keep once the Job has started: then `pods`
/// has to be false, or the Job suspended.
pub fn copy(policies: &PolicySet, input: &TemplateInput<'_>, job: &Value, pods: bool) -> Option<Value> {
    let sections = PolicyScope::of_input(policies, input).sections(input.object);
    let matches = sections.metadata.iter().filter(|matched| matched.mode == Mode::Enforce);
    let pods = pods && Job::of(job).is_suspended() && job.pointer("/status/startTime").is_none_or(Value::is_null);
    let task = Metadata::of(input.object);
    let edits: Vec<_> = matches
        .flat_map(|matched| copied(matched.rule, task, job, pods))
        .collect();
    (!edits.is_empty()).then(|| merge(&edits))
}

/// The merge patch of the metadata of a Task that waits for nothing any more.
pub fn settle() -> Value {
    json!({"annotations": {keys::PENDING: null}})
}

/// What the metadata sections of the Task's policies do to its Job and its pods, where cost tools, schedulers and metrics read labels
/// and annotations.
///
/// The values are those of the Task, whether a policy or a user set them: Job, pod and Task never differ. Keys that the Job or its pod
/// template has already stay. The Job's selector is not touched, and Kueue's keys cannot get into a pod template, because
/// no policy can set them.
pub(crate) fn propagate<'a>(governed: &Governed<'a>) -> Vec<Finding<'a>> {
    let Some(task) = governed.task else {
        return Vec::new();
    };
    let matches = governed
        .sections
        .metadata
        .iter()
        .filter(|matched| matched.mode != Mode::Off);
    matches
        .filter_map(|matched| propagated(governed, matched, task.metadata()))
        .collect()
}

fn propagated<'a>(
    governed: &Governed<'a>,
    matched: &SectionMatch<'a, &'a MetadataRule>,
    task: Metadata<'_>,
) -> Option<Finding<'a>> {
    let edits = copied(matched.rule, task, governed.request.object, true);
    let keys: Vec<_> = edits.iter().filter_map(Edit::key).map(ToOwned::to_owned).collect();
    let detail = Detail::MetadataSet(keys);
    (!edits.is_empty()).then(|| Finding::new(Section::Metadata, matched, detail, Effect::Change(edits)))
}

/// What `rule` copies from `task` to `job`, and to its pod template if `pods`.
fn copied(rule: &MetadataRule, task: Metadata<'_>, job: &Value, pods: bool) -> Vec<Edit> {
    let template = job
        .pointer("/spec/template")
        .filter(|template| pods && template.is_object());
    let mut edits = Vec::new();
    for (target, object) in [(PropagationTarget::Job, Some(job)), (PropagationTarget::Pod, template)] {
        let Some(existing) = object.map(Metadata::of).filter(|_| rule.reaches(target)) else {
            continue;
        };
        for entry in &rule.entries {
            let value = |metadata| entry.kind.value(metadata, &entry.key);
            let (Some(value), None) = (value(task), value(existing)) else {
                continue;
            };
            edits.push(match target {
                PropagationTarget::Job => Edit::set(entry.kind, &entry.key, value),
                PropagationTarget::Pod => Edit::set_in_pod(entry.kind, &entry.key, value),
            });
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        fixtures,
        issue_source::{SourceItem, SpawnerInfo},
        kubernetes::label_value,
    };

    fn policies(sections: &[Value]) -> PolicySet {
        let sections = sections.iter().enumerate();
        fixtures::policies(sections.map(|(index, section)| json!({"priority": 9 - index, "metadata": section})))
    }

    fn filled(sections: &[Value], labels: &Value, pending: &str) -> LateMetadata {
        let object = json!({"metadata": {
            "name": "fixer-42", "labels": labels, "annotations": {"taskgate.dev/metadata-pending": pending},
        }});
        let item = SourceItem {
            title: "Crash {{.URL}}".into(),
            labels: vec!["priority/critical".into(), "bug".into()],
            ..SourceItem::default()
        };
        let input = TemplateInput {
            object: &object,
            namespace: "team",
            namespace_labels: &BTreeMap::new(),
            spawner: Some(&SpawnerInfo::default()),
            workspace: None,
            user: None,
            source_fields: Some(&item.template_fields()),
        };
        fill(&policies(sections), &input)
    }

    #[test]
    fn only_what_waits_is_made_and_by_the_same_rules() {
        let strong = json!({"engine": "GoTemplate", "fromSource": true, "labels": {"title": "{{.Title}}", "first": "{{index .Labels 0}}"}});
        let weak = json!({"labels": {"title": "weak", "other": "weak"}});
        let filling = filled(&[strong.clone(), weak.clone()], &json!({}), "label:title");
        let title = label_value("Crash {{.URL}}");
        let gone = json!({"taskgate.dev/metadata-pending": null});
        assert_eq!(filling.change, json!({"labels": {"title": title}, "annotations": gone}));
        // A value that a user set meanwhile stays, unless it is overridden.
        let own = json!({"title": "mine"});
        assert_eq!(
            filled(std::slice::from_ref(&strong), &own, "label:title").change,
            json!({"annotations": gone})
        );
        let mut overriding = strong.clone();
        overriding["override"] = json!(true);
        assert_eq!(
            filled(&[overriding], &own, "label:title").change["labels"],
            json!({"title": title})
        );
        // A weaker policy helps out where the stronger has no value.
        let mut missing = strong.clone();
        missing["labels"]["title"] = json!("{{index .Labels 7}}");
        assert_eq!(
            filled(&[missing.clone(), weak], &json!({}), "label:title").change["labels"],
            json!({"title": "weak"})
        );
        let left_out = filled(&[missing], &json!({}), "label:title").left_out.unwrap();
        assert!(left_out.starts_with("title: line 1, column"), "{left_out}");
    }

    #[test]
    fn what_propagates_is_still_to_be_copied() {
        let section = json!({"engine": "GoTemplate", "fromSource": true, "labels": {"first": "{{index .Labels 0}}"}, "propagate": ["Pod"]});
        let filling = filled(std::slice::from_ref(&section), &json!({}), "label:first");
        assert_eq!(
            filling.change["annotations"],
            json!({"taskgate.dev/metadata-pending": "copy"})
        );
        let object = json!({"metadata": {"labels": {"first": "x"}}});
        let input = TemplateInput {
            object: &object,
            namespace: "team",
            namespace_labels: &BTreeMap::new(),
            spawner: None,
            workspace: None,
            user: None,
            source_fields: None,
        };
        let set = policies(&[section]);
        let mut job = json!({"spec": {"suspend": true, "template": {}}});
        let patch = json!({"spec": {"template": {"metadata": {"labels": {"first": "x"}}}}});
        assert_eq!(copy(&set, &input, &job, true), Some(patch));
        assert_eq!(copy(&set, &input, &job, false), None);
        job["status"]["startTime"] = json!("2026-11-21T12:00:00Z");
        assert_eq!(copy(&set, &input, &job, true), None);
        job = json!({"spec": {"suspend": false, "template": {}}});
        assert_eq!(copy(&set, &input, &job, true), None);
    }
}
