//! A Task's labels and annotations on its Job and pods, where cost tools, schedulers and metrics read them.

use serde_json::Value;
use taskgate_api::{Mode, metadata::Metadata, task_policy::PropagationTarget};

use crate::{
    decision::{Detail, Effect, Finding, Governed},
    kubernetes::{Edit, KeyKind},
    matching::{MetadataRule, Section, SectionMatch},
};

/// What the metadata sections of the Task's policies do to its Job.
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
        .filter_map(|matched| finding(governed, matched, task.metadata()))
        .collect()
}

fn finding<'a>(
    governed: &Governed<'a>,
    matched: &SectionMatch<'a, &'a MetadataRule>,
    task: Metadata<'_>,
) -> Option<Finding<'a>> {
    let edits = edits(matched.rule, task, governed.request.object, true);
    let keys: Vec<_> = edits.iter().filter_map(Edit::key).map(ToOwned::to_owned).collect();
    let detail = Detail::MetadataSet { keys };
    (!edits.is_empty()).then(|| Finding::new(Section::Metadata, matched, detail, Effect::Change(edits)))
}

/// What `rule` copies from `task` to `job`, and to its pod template if `pods`.
pub(super) fn edits(rule: &MetadataRule, task: Metadata<'_>, job: &Value, pods: bool) -> Vec<Edit> {
    let template = job
        .pointer("/spec/template")
        .filter(|template| pods && template.is_object());
    let mut edits = Vec::new();
    for (target, object) in [(PropagationTarget::Job, Some(job)), (PropagationTarget::Pod, template)] {
        let Some(existing) = object.map(Metadata::of).filter(|_| rule.reaches(target)) else {
            continue;
        };
        for entry in &rule.entries {
            let (value, taken) = match entry.kind {
                KeyKind::Label => (task.label(&entry.key), existing.label(&entry.key)),
                KeyKind::Annotation => (task.annotation(&entry.key), existing.annotation(&entry.key)),
            };
            let (Some(value), None) = (value, taken) else {
                continue;
            };
            let (key, value) = (entry.key.to_string(), value.to_owned());
            edits.push(match (target, entry.kind) {
                (PropagationTarget::Job, KeyKind::Label) => Edit::Label(key, value),
                (PropagationTarget::Job, KeyKind::Annotation) => Edit::Annotation(key, value),
                (PropagationTarget::Pod, KeyKind::Label) => Edit::PodLabel(key, value),
                (PropagationTarget::Pod, KeyKind::Annotation) => Edit::PodAnnotation(key, value),
            });
        }
    }
    edits
}
