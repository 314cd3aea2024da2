//! A metadata section, compiled: once when the policy is read, never per request.

use std::{borrow::Cow, sync::Arc};

use taskgate_api::task_policy::{IllegalValue, MetadataPolicy, PropagationTarget, TemplateEngine};

use super::{Place, keys, label, reads};
use crate::{
    Problem, names,
    template::{Cause, Failure, Moment, Rendering, Templates, Text},
};

/// The longest text that a label's template may give before it is made legal, in bytes.
const MAX_LABEL_TEXT: usize = 4096;
/// The longest annotation, in bytes.
const MAX_ANNOTATION: usize = 16 * 1024;

/// A compiled metadata section.
#[derive(Debug, Default)]
pub(crate) struct MetadataRule {
    pub(crate) entries: Vec<Entry>,
    pub(crate) override_existing: bool,
    missing_value: Option<String>,
    illegal_value: IllegalValue,
    from_source: bool,
    propagate: Vec<PropagationTarget>,
}

/// A key and how its value is made.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    /// Shared with the lists of keys that policies set.
    pub(crate) key: Arc<str>,
    text: Text,
    reads_tracker: bool,
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rendered {
    /// It has this value.
    Value(String),
    /// Its text was no legal label value and was made one.
    Sanitized { text: String, value: String },
    /// Something is missing, and the policy says what then.
    Defaulted {
        /// What is missing.
        why: String,
        value: String,
    },
    /// The template gives no text: a way to set a key only sometimes.
    Empty,
    /// It has no value, for this reason.
    Skipped(String),
    /// It has no value, because other templates took too much work.
    Exhausted(String),
}

impl Rendered {
    /// The value, if there is one.
    pub(crate) fn value(&self) -> Option<&str> {
        match self {
            Self::Value(value) | Self::Sanitized { value, .. } | Self::Defaulted { value, .. } => Some(value),
            Self::Empty | Self::Skipped(_) | Self::Exhausted(_) => None,
        }
    }
}

impl MetadataRule {
    /// Compiles `section`, whose Tera templates are among `templates`, and renders it over a sample. Every problem found goes
    /// to `problems`.
    pub(crate) fn compile(section: &MetadataPolicy, templates: &Templates, problems: &mut Vec<Problem>) -> Self {
        let engine = section.engine.unwrap_or_default();
        let mut rule = Self {
            override_existing: section.override_existing,
            missing_value: section.missing_value.clone(),
            illegal_value: section.illegal_value,
            from_source: section.from_source,
            propagate: section.propagate.clone().unwrap_or_default(),
            ..Self::default()
        };
        for (place, name, entries) in [
            (Place::Label, "labels", &section.labels),
            (Place::Annotation, "annotations", &section.annotations),
        ] {
            for (key, source) in entries {
                let compiled = match keys::refusal(place, key) {
                    Some(refusal) => Err(refusal.to_owned()),
                    None => compile(place, templates, engine, source),
                };
                match compiled {
                    Ok(text) => {
                        rule.entries.push(Entry {
                            place,
                            key: key.as_str().into(),
                            text,
                            reads_tracker: reads::tracker(source),
                        });
                    }
                    Err(message) => problems.push(Problem {
                        field: format!("spec.metadata.{name}[{}]", names::clip(key, 80)),
                        message,
                    }),
                }
            }
        }
        let default = section.missing_value.as_ref();
        if let Some(value) = default.filter(|value| !names::is_label_value(value) && !section.labels.is_empty()) {
            problems.push(Problem {
                field: "spec.metadata.missingValue".to_owned(),
                message: format!("{:?} is not a legal label value", names::clip(value, 63)),
            });
        }
        rule
    }

    /// Whether objects of `target` get the same labels and annotations.
    pub(crate) fn reaches(&self, target: PropagationTarget) -> bool {
        self.propagate.contains(&target)
    }

    /// Whether the value of `entry` is made only once the tracker has told of the item.
    pub(crate) fn waits(&self, entry: &Entry) -> bool {
        self.from_source && entry.reads_tracker
    }

    /// Whether that is so of any entry.
    pub(crate) fn follows_source(&self) -> bool {
        self.entries.iter().any(|entry| self.waits(entry))
    }

    /// The value of `entry`.
    pub(super) fn render(&self, entry: &Entry, rendering: &mut Rendering<'_>) -> Rendered {
        let text = match rendering.render(&entry.text, entry.place.max()) {
            Ok(Cow::Borrowed(literal)) => return Rendered::Value(literal.to_owned()),
            Ok(Cow::Owned(text)) => text,
            Err(failure) => return self.failed(failure),
        };
        match entry.place {
            _ if text.is_empty() => Rendered::Empty,
            Place::Annotation => Rendered::Value(text),
            Place::Label if names::is_label_value(&text) => Rendered::Value(text),
            Place::Label if self.illegal_value == IllegalValue::Sanitize => Rendered::Sanitized {
                value: label::legal(&text),
                text,
            },
            Place::Label => Rendered::Skipped(format!("{:?} is not a legal label value", names::clip(&text, 40))),
        }
    }

    fn failed(&self, failure: Failure) -> Rendered {
        match (&self.missing_value, failure.cause) {
            (Some(value), Cause::Missing) => Rendered::Defaulted {
                why: failure.message,
                value: value.clone(),
            },
            (_, Cause::Budget) => Rendered::Exhausted(failure.message),
            _ => Rendered::Skipped(failure.message),
        }
    }
}

impl Place {
    /// The longest text that a template may give, in bytes.
    fn max(self) -> usize {
        match self {
            Self::Label => MAX_LABEL_TEXT,
            Self::Annotation => MAX_ANNOTATION,
        }
    }
}

/// Compiles the value of one key.
fn compile(place: Place, templates: &Templates, engine: TemplateEngine, source: &str) -> Result<Text, String> {
    let text = templates.tried(engine, source, place.max(), Moment::Task)?;
    match text {
        Text::Literal(text) if place == Place::Label && !names::is_label_value(&text) => {
            Err("not a legal label value: at most 63 letters, digits, '-', '_' or '.', not at the edges".to_owned())
        }
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;
    use taskgate_api::TaskPolicySpec;

    use super::{super::Managed, *};
    use crate::template::{Budget, Scope, Sees};

    /// Text as people write it who mean no good.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("{{ item.title }}".to_owned()),
            Just("{{.Title}}".to_owned()),
            Just("{{ 1 + 1 }}{{printf \"%d\" 2}}".to_owned()),
            Just("{% for x in item %}".to_owned()),
            Just("{{define \"x\"}}".to_owned()),
            prop::sample::select(vec![
                "{{", "}}", "{%", "{#", "\u{202e}", "\u{200b}", "\n", "\"; ", "<b>", "&", "😀", "-"
            ])
            .prop_map(ToOwned::to_owned),
            "\\PC{0,30}",
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_comes_from_outside_is_never_evaluated_and_every_label_is_legal(text in hostile()) {
            let tracked = json!({"title": text});
            let scope = Scope {
                object: &json!({}),
                namespace: "team",
                namespace_labels: &BTreeMap::new(),
                spawner: None,
                workspace: None,
                user: None,
                tracked: tracked.as_object(),
            };
            let mut rendering = Rendering::new(scope, Sees::Unmanaged(Managed::NONE), Budget::default());
            for (engine, template) in [("Tera", "{{ item.title }}"), ("GoTemplate", "{{.Title}}")] {
                let section = json!({"engine": engine, "labels": {"x": template}, "annotations": {"x": template}});
                let spec: TaskPolicySpec = serde_json::from_value(json!({"metadata": section})).unwrap();
                let templates = Templates::of(&spec).unwrap();
                let rule = MetadataRule::compile(spec.metadata.as_ref().unwrap(), &templates, &mut Vec::new());
                prop_assert_eq!(rule.entries.len(), 2);
                for entry in &rule.entries {
                    let rendered = rule.render(entry, &mut rendering);
                    let value = rendered.value().unwrap_or_default();
                    match entry.place {
                        Place::Annotation => prop_assert_eq!(value, &text),
                        Place::Label => {
                            prop_assert!(names::is_label_value(value), "{:?}", value);
                            prop_assert_eq!(value, label::legal(&text));
                        }
                    }
                }
            }
        }
    }
}
