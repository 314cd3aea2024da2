//! A preview of a policy's labels and annotations for a Task, with the same compiled templates as at admission.

use super::{
    Planned,
    findings::Values,
    source_read::{has_number, has_readable_source},
};
use crate::{
    kubernetes::clip,
    matching::{Policy, PolicySet, Rendered},
    template::TemplateInput,
};

/// One key of a policy's metadata section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewLine {
    /// `label` or `annotation`.
    pub kind: &'static str,
    /// The key.
    pub key: String,
    /// What the Task will have under it; `None` if nothing.
    pub value: Option<String>,
    /// How that came about.
    pub note: String,
}

/// The labels and annotations that the metadata section of `policy` sets on the Task of `input`. Empty when it has none.
///
/// Only this policy counts: stronger policies, its selector and its mode are ignored.
pub fn preview(policy: &Policy, input: &TemplateInput<'_>) -> Vec<PreviewLine> {
    let set = PolicySet::new([policy.clone()]);
    let mut values = Values::new(*input, set.managed(input.namespace));
    let planned = Planned::of(input.object);
    let rule = policy.metadata().map(|(_, rule)| rule);
    // The spawner may be missing from the input.
    let may_wait =
        input.source_fields.is_none() && (input.spawner.is_none() && has_number(input) || has_readable_source(input));
    let entries = rule
        .into_iter()
        .flat_map(|rule| rule.entries.iter().map(move |entry| (rule, entry)));
    entries
        .map(|(rule, entry)| {
            let existing = planned.get(entry.kind, &entry.key);
            let rendered = values.of(rule, entry).clone();
            let waits = may_wait && rule.waits(entry);
            let (value, note) = match (existing, rendered.value()) {
                (Some(existing), _) if waits && !rule.override_existing => {
                    (Some(existing), "the Task's own stays".to_owned())
                }
                (existing, _) if waits => (existing, "set once the issue source has been read".to_owned()),
                (Some(existing), Some(value)) if existing == value => (Some(existing), "there already".to_owned()),
                (Some(existing), _) if !rule.override_existing => (Some(existing), "the Task's own stays".to_owned()),
                (Some(existing), None) => (Some(existing), explain(&rendered)),
                (Some(existing), value) => (value, format!("replaces {:?}", clip(existing, 40))),
                (None, value) => (value, explain(&rendered)),
            };
            PreviewLine {
                kind: entry.kind.as_str(),
                key: entry.key.to_string(),
                value: value.map(ToOwned::to_owned),
                note,
            }
        })
        .collect()
}

fn explain(rendered: &Rendered) -> String {
    match rendered {
        Rendered::Value(_) => "set".to_owned(),
        Rendered::Sanitized { text, .. } => format!("set; {:?} is no legal label value", clip(text, 60)),
        Rendered::Defaulted { why, .. } => format!("missingValue: {why}"),
        Rendered::Empty => "left out: the template gives no text".to_owned(),
        Rendered::Skipped(why) | Rendered::Exhausted(why) => format!("left out: {why}"),
    }
}
