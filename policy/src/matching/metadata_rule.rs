//! A metadata section, compiled: once when the policy is read, never per request.

use std::{borrow::Cow, sync::Arc};

use taskgate_api::{
    kelos, keys, kueue,
    task_policy::{IllegalValue, MetadataPolicy, PropagationTarget, TemplateEngine},
};

use crate::{
    kubernetes::{KeyKind, Problems, clip, is_key, is_label_value, label_value},
    template::{Cause, Failure, Keys, Moment, Rendering, Templates, Text, Tried, reads_source_fields},
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
    pub(crate) kind: KeyKind,
    /// Shared with the lists of keys that policies set.
    pub(crate) key: Arc<str>,
    text: Text,
    reads_source: bool,
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rendered {
    /// It has this value.
    Value(String),
    /// Its text was no legal label value and was made one.
    Sanitized { text: String, value: String },
    /// An input is missing, and the policy has a value for that.
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
    /// Compiles `section`, whose Tera templates are among `templates`, and renders it over samples. Every problem found goes
    /// to `problems`.
    pub(crate) fn compile(section: &MetadataPolicy, templates: &Templates, problems: &mut Problems) -> Self {
        let engine = section.engine.unwrap_or_default();
        let mut rule = Self {
            override_existing: section.override_existing,
            missing_value: section.missing_value.clone(),
            illegal_value: section.illegal_value,
            from_source: section.from_source,
            propagate: section.propagate.clone().unwrap_or_default(),
            ..Self::default()
        };
        for (kind, entries) in KeyKind::ALL.into_iter().zip([&section.labels, &section.annotations]) {
            for (key, source) in entries {
                let compiled = match refusal(kind, key) {
                    Some(refusal) => Err(refusal.to_owned()),
                    None => compile(kind, templates, engine, source),
                };
                let field = format!("spec.metadata.{}[{}]", kind.field(), clip(key, 80));
                let Some(Tried { text, doubt }) = problems.check(&field, compiled) else {
                    continue;
                };
                if let Some(doubt) = doubt {
                    problems.doubt(&field, doubt);
                }
                rule.entries.push(Entry {
                    kind,
                    key: key.as_str().into(),
                    text,
                    reads_source: reads_source_fields(source),
                });
            }
        }
        let default = section.missing_value.as_ref();
        if let Some(value) = default.filter(|value| !is_label_value(value) && !section.labels.is_empty()) {
            let message = format!("{:?} is not a legal label value", clip(value, 63));
            problems.add("spec.metadata.missingValue", message);
        }
        rule
    }

    /// Adds the keys that the rule sets to `keys`.
    pub(super) fn add_keys(&self, keys: &mut Keys) {
        for entry in &self.entries {
            keys.add(entry.kind, &entry.key, self.override_existing);
        }
    }

    /// Whether objects of `target` get the same labels and annotations.
    pub(crate) fn reaches(&self, target: PropagationTarget) -> bool {
        self.propagate.contains(&target)
    }

    /// Whether the value of `entry` is set only once the issue source has been read.
    pub(crate) fn waits(&self, entry: &Entry) -> bool {
        self.from_source && entry.reads_source
    }

    /// Whether that is so of any entry.
    pub(crate) fn follows_source(&self) -> bool {
        self.entries.iter().any(|entry| self.waits(entry))
    }

    /// The value of `entry`.
    pub(crate) fn render(&self, entry: &Entry, rendering: &mut Rendering<'_>) -> Rendered {
        let text = match rendering.render(&entry.text, max_text(entry.kind)) {
            Ok(Cow::Borrowed(literal)) => return Rendered::Value(literal.to_owned()),
            Ok(Cow::Owned(text)) => text,
            Err(failure) => return self.failed(failure),
        };
        match entry.kind {
            _ if text.is_empty() => Rendered::Empty,
            KeyKind::Annotation => Rendered::Value(text),
            KeyKind::Label if is_label_value(&text) => Rendered::Value(text),
            KeyKind::Label if self.illegal_value == IllegalValue::Sanitize => Rendered::Sanitized {
                value: label_value(&text),
                text,
            },
            KeyKind::Label => Rendered::Skipped(format!("{:?} is not a legal label value", clip(&text, 40))),
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

/// The longest text that a template may give, in bytes.
fn max_text(kind: KeyKind) -> usize {
    match kind {
        KeyKind::Label => MAX_LABEL_TEXT,
        KeyKind::Annotation => MAX_ANNOTATION,
    }
}

/// Compiles the value of one key.
fn compile(kind: KeyKind, templates: &Templates, engine: TemplateEngine, source: &str) -> Result<Tried, String> {
    let tried = templates.tried(engine, source, max_text(kind), Moment::Task)?;
    match &tried.text {
        Text::Literal(text) if kind == KeyKind::Label && !is_label_value(text) => {
            Err("not a legal label value: at most 63 letters, digits, '-', '_' or '.', not at the edges".to_owned())
        }
        _ => Ok(tried),
    }
}

/// Labels under `kelos.dev/` that Kelos does not use: a policy can set them.
const FREE_LABELS: [&str; 3] = ["kelos.dev/source-kind", "kelos.dev/priority", "kelos.dev/source-url"];
/// The same among annotations. Kelos sets `kelos.dev/source-kind` itself.
const FREE_ANNOTATIONS: [&str; 3] = ["kelos.dev/priority", "kelos.dev/source-url", "kelos.dev/source-title"];

/// Why a policy cannot set `key`, if it cannot.
fn refusal(kind: KeyKind, key: &str) -> Option<&'static str> {
    if !is_key(key) {
        return Some("not a legal key: [dns.prefix/]name, the name at most 63 characters");
    }
    let (prefix, _) = key.split_once('/')?;
    let free = match kind {
        KeyKind::Label => FREE_LABELS.contains(&key),
        KeyKind::Annotation => FREE_ANNOTATIONS.contains(&key),
    };
    let under = |domain: &str| prefix == domain || prefix.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if under("kubernetes.io") || under("k8s.io") {
        Some("keys of kubernetes.io and k8s.io are reserved for Kubernetes")
    } else if key.starts_with(keys::PREFIX) || key.starts_with(kueue::PREFIX) {
        Some("taskgate sets keys of taskgate.dev and kueue.x-k8s.io itself")
    } else if under(kelos::GROUP) && !free {
        Some("Kelos uses keys of kelos.dev: a policy can set only those that Kelos does not use")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;
    use taskgate_api::TaskPolicySpec;

    use super::*;
    use crate::template::{Budget, Managed, Sees, TemplateInput};

    /// Text that tries to inject template code or illegal characters.
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
            let source_fields = json!({"title": text});
            let input = TemplateInput {
                object: &json!({}),
                namespace: "team",
                namespace_labels: &BTreeMap::new(),
                spawner: None,
                workspace: None,
                user: None,
                source_fields: source_fields.as_object(),
            };
            let mut rendering = Rendering::new(input, Sees::Unmanaged(Managed::NONE), Budget::default());
            for (engine, template) in [("Tera", "{{ item.title }}"), ("GoTemplate", "{{.Title}}")] {
                let section = json!({"engine": engine, "labels": {"x": template}, "annotations": {"x": template}});
                let spec: TaskPolicySpec = serde_json::from_value(json!({"metadata": section})).unwrap();
                let templates = Templates::of(&spec).unwrap();
                let rule = MetadataRule::compile(spec.metadata.as_ref().unwrap(), &templates, &mut Problems::default());
                prop_assert_eq!(rule.entries.len(), 2);
                for entry in &rule.entries {
                    let rendered = rule.render(entry, &mut rendering);
                    let value = rendered.value().unwrap_or_default();
                    match entry.kind {
                        KeyKind::Annotation => prop_assert_eq!(value, text.trim()),
                        KeyKind::Label => {
                            prop_assert!(is_label_value(value), "{:?}", value);
                            prop_assert_eq!(value, label_value(text.trim()));
                        }
                    }
                }
            }
        }
    }

    /// A YAML block ends with a newline, and a template has spaces around its tags.
    #[test]
    fn whitespace_around_a_value_is_no_part_of_it() {
        let task = json!({"spec": {"model": "opus", "effort": "low"}});
        let input = TemplateInput {
            object: &task,
            namespace: "team",
            namespace_labels: &BTreeMap::new(),
            spawner: None,
            workspace: None,
            user: None,
            source_fields: None,
        };
        for (engine, template, expected) in [
            ("Tera", "{{ task.spec.model }}\n", Some("opus")),
            (
                "Tera",
                "{% if task.spec.model %} {{ task.spec.model }} {% endif %}",
                Some("opus"),
            ),
            ("Tera", "{% if task.spec.effort == \"high\" %}XL{% endif %}\n", None),
            ("GoTemplate", "{{.task.spec.model}}\n", Some("opus")),
            (
                "GoTemplate",
                "{{if .task.spec.model}} {{.task.spec.model}} {{end}}",
                Some("opus"),
            ),
            ("GoTemplate", "{{if eq .task.spec.effort \"high\"}}XL{{end}}\n", None),
            ("Tera", " opus\n", Some("opus")),
        ] {
            let section = json!({"engine": engine, "labels": {"x": template}, "annotations": {"x": template}});
            let spec: TaskPolicySpec =
                serde_json::from_value(json!({"metadata": section, "queueName": template})).unwrap();
            let templates = Templates::of(&spec).unwrap();
            let mut problems = Problems::default();
            let rule = MetadataRule::compile(spec.metadata.as_ref().unwrap(), &templates, &mut problems);
            assert_eq!(
                (rule.entries.len(), problems.errors.len()),
                (2, 0),
                "{template:?}: {:?}",
                problems.errors
            );
            let mut rendering = Rendering::new(input, Sees::Unmanaged(Managed::NONE), Budget::default());
            for entry in &rule.entries {
                let rendered = rule.render(entry, &mut rendering);
                assert_eq!(
                    rendered.value(),
                    expected,
                    "{:?} {template:?}: {rendered:?}",
                    entry.kind
                );
            }
            let policy = crate::Policy::namespaced("team", "p", &spec).unwrap();
            let queue = policy.queue().unwrap().rule.queue.unwrap().render(&mut rendering);
            assert_eq!(queue.ok().as_deref(), expected, "{template:?}");
        }
    }

    #[test]
    fn keys_of_other_systems_cannot_be_set() {
        let long = format!("example.com/{}", "k".repeat(64));
        for (kind, key, free) in [
            (KeyKind::Label, "team", true),
            (KeyKind::Label, "team.example.com/area", true),
            (KeyKind::Label, "kelos.dev/source-kind", true),
            (KeyKind::Annotation, "kelos.dev/source-kind", false),
            (KeyKind::Label, "kelos.dev/priority", true),
            (KeyKind::Annotation, "kelos.dev/source-url", true),
            (KeyKind::Annotation, "kelos.dev/source-title", true),
            (KeyKind::Label, "kelos.dev/taskspawner", false),
            (KeyKind::Label, "kelos.dev/anything", false),
            (KeyKind::Annotation, "kelos.dev/source-number", false),
            (KeyKind::Label, "taskgate.dev/work-item", false),
            (KeyKind::Label, "kueue.x-k8s.io/queue-name", false),
            (KeyKind::Label, "kubernetes.io/arch", false),
            (KeyKind::Label, "app.kubernetes.io/name", false),
            (KeyKind::Label, "batch.kubernetes.io/job-name", false),
            (KeyKind::Label, "notkubernetes.io/x", true),
            (KeyKind::Label, "a/b/c", false),
            (KeyKind::Label, &long, false),
            (KeyKind::Label, "", false),
            (KeyKind::Label, "größe", false),
        ] {
            assert_eq!(refusal(kind, key).is_none(), free, "{kind:?} {key}");
        }
    }
}
