//! Labels and annotations that a policy puts on Tasks (seed 004).

use std::collections::BTreeMap;

use serde_json::Value;
use taskgate_api::{Mode, metadata::Metadata, task_policy::MetadataPolicy};

use crate::{
    Detail, Section,
    decision::{Effect, Finding},
    patch::Edit,
    select::Ruling,
};

/// What `ruling` does to the Task `object`. `labels` are the labels that the Task has or will have; those that are set
/// here are added to it.
///
/// What the creator set stays: a key that is there with another value is left alone and told about, so that Kelos' own
/// keys and the spawner's template always win.
pub(crate) fn findings<'a>(
    object: &Value,
    ruling: Ruling<'a, &'a MetadataPolicy>,
    labels: &mut BTreeMap<String, String>,
) -> Vec<Finding<'a>> {
    let finding = |detail, effect| Finding::new(Section::Metadata, &ruling, detail, effect);
    if ruling.mode == Mode::Off {
        return Vec::new();
    }
    let metadata = Metadata::of(object);
    let mut edits = Vec::new();
    let mut kept = Vec::new();
    for (key, value) in &ruling.rule.labels {
        match labels.get(key) {
            None => edits.push(Edit::Label(key.clone(), value.clone())),
            Some(existing) if existing != value => kept.push(key.clone()),
            Some(_) => {}
        }
    }
    for (key, value) in &ruling.rule.annotations {
        match metadata.annotation(key) {
            None => edits.push(Edit::Annotation(key.clone(), value.clone())),
            Some(existing) if existing != value => kept.push(key.clone()),
            Some(_) => {}
        }
    }
    let mut findings = Vec::new();
    if !edits.is_empty() {
        let set = edits.iter().filter_map(Edit::key).map(ToOwned::to_owned).collect();
        if ruling.mode == Mode::Enforce {
            labels.extend(edits.iter().filter_map(|edit| match edit {
                Edit::Label(key, value) => Some((key.clone(), value.clone())),
                _ => None,
            }));
        }
        findings.push(finding(Detail::MetadataSet { keys: set }, Effect::Change(edits)));
    }
    if !kept.is_empty() {
        findings.push(finding(Detail::MetadataKept { keys: kept }, Effect::Tell));
    }
    findings
}
