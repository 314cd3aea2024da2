//! What a policy makes of a Task, key by key, for people: the same compiled templates as at admission.

use super::{
    Place, Planned, Rendered, Scope, Values,
    late::{has_number, is_trackable},
};
use crate::{Policy, PolicySet, names::clip};

/// One key of a policy's metadata section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewLine {
    /// `label` or `annotation`.
    pub place: &'static str,
    /// The key.
    pub key: String,
    /// What the Task will have under it; `None` if nothing.
    pub value: Option<String>,
    /// How that came about.
    pub note: String,
}

/// What the metadata section of `policy` makes of the Task of `scope`. Empty when it has none.
///
/// The policy is looked at alone: stronger policies, and its selector and mode, are left aside.
pub fn preview(policy: &Policy, scope: &Scope<'_>) -> Vec<PreviewLine> {
    let set = PolicySet::new([policy.clone()]);
    let mut values = Values::new(*scope, set.managed(scope.namespace));
    let planned = Planned::of(scope.object);
    let rule = policy.metadata().map(|(_, rule)| rule);
    // Nobody need have shown the spawner.
    let may_wait = scope.tracked.is_none() && (scope.spawner.is_none() && has_number(scope) || is_trackable(scope));
    let entries = rule
        .into_iter()
        .flat_map(|rule| rule.entries.iter().map(move |entry| (rule, entry)));
    entries
        .map(|(rule, entry)| {
            let existing = planned.get(entry.place, &entry.key);
            let rendered = values.of(rule, entry).clone();
            let waits = may_wait && rule.waits(entry);
            let (value, note) = match (existing, rendered.value()) {
                (Some(existing), _) if waits && !rule.override_existing => {
                    (Some(existing), "the Task's own stays".to_owned())
                }
                (existing, _) if waits => (existing, "set once the tracker has told of the item".to_owned()),
                (Some(existing), Some(value)) if existing == value => (Some(existing), "there already".to_owned()),
                (Some(existing), _) if !rule.override_existing => (Some(existing), "the Task's own stays".to_owned()),
                (Some(existing), None) => (Some(existing), explain(&rendered)),
                (Some(existing), value) => (value, format!("replaces {:?}", clip(existing, 40))),
                (None, value) => (value, explain(&rendered)),
            };
            PreviewLine {
                place: match entry.place {
                    Place::Label => "label",
                    Place::Annotation => "annotation",
                },
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
