//! A metadata section, compiled: once when the policy is read, never per request.

use std::borrow::Cow;

use taskgate_api::task_policy::{IllegalValue, MetadataPolicy, PropagationTarget, TemplateEngine};

use super::{
    Place,
    context::Context,
    engine::{Cause, Failure},
    keys, label,
    sample::Moment,
    text::Text,
};
use crate::{Problem, names};

/// The longest text that a label's template may give before it is made legal, in bytes.
const MAX_LABEL_TEXT: usize = 4096;
/// The longest annotation, in bytes.
const MAX_ANNOTATION: usize = 16 * 1024;

/// A compiled metadata section.
#[derive(Debug, Default)]
pub(crate) struct MetadataRule {
    pub(crate) entries: Vec<Entry>,
    pub(crate) override_existing: bool,
    /// Whether any value is a template.
    pub(crate) has_templates: bool,
    missing_value: Option<String>,
    illegal_value: IllegalValue,
    propagate: Vec<PropagationTarget>,
}

/// A key and how its value is made.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) key: String,
    text: Text,
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
}

impl Rendered {
    /// The value, if there is one.
    pub(crate) fn value(&self) -> Option<&str> {
        match self {
            Self::Value(value) | Self::Sanitized { value, .. } | Self::Defaulted { value, .. } => Some(value),
            Self::Empty | Self::Skipped(_) => None,
        }
    }
}

impl MetadataRule {
    /// Compiles `section` and renders it over a sample. Every problem found goes to `problems`.
    pub(crate) fn compile(section: &MetadataPolicy, problems: &mut Vec<Problem>) -> Self {
        let engine = section.engine.unwrap_or_default();
        let mut rule = Self {
            override_existing: section.override_existing,
            missing_value: section.missing_value.clone(),
            illegal_value: section.illegal_value,
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
                    None => compile(place, engine, source),
                };
                match compiled {
                    Ok(text) => {
                        rule.has_templates |= matches!(text, Text::Template(_));
                        rule.entries.push(Entry {
                            place,
                            key: key.clone(),
                            text,
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

    /// The value of `entry` over `context`.
    pub(crate) fn render(&self, entry: &Entry, context: &Context) -> Rendered {
        let text = match entry.text.render(|| context, entry.place.max()) {
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

fn compile(place: Place, engine: TemplateEngine, source: &str) -> Result<Text, String> {
    match Text::compile(engine, source, place.max(), Moment::Task)? {
        Text::Literal(text) if place == Place::Label && !names::is_label_value(&text) => {
            Err("not a legal label value: at most 63 letters, digits, '-', '_' or '.', not at the edges".to_owned())
        }
        text => Ok(text),
    }
}
