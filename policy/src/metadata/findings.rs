//! The labels and annotations that the metadata sections of policies set on a Task.

use std::collections::{BTreeSet, HashMap};

use taskgate_api::Mode;

use super::{
    Pending, Planned,
    planned::NO_ROOM,
    source_read::{has_number, has_readable_source},
};
use crate::{
    decision::{Detail, Effect, Finding},
    kubernetes::{Edit, KeyKind, clip},
    matching::{Entry, MetadataRule, Policy, PolicySet, Rendered, Section, SectionMatch},
    template::{Budget, Managed, Rendering, Sees, TemplateInput},
};

/// When keys are set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage<'a> {
    /// The Task is being created.
    Creation {
        /// Whether taskgate can read its item at the issue source.
        source_readable: bool,
    },
    /// The issue source was read, for which these keys waited.
    SourceRead(&'a Pending),
}

impl Stage<'_> {
    fn concerns(self, entry: &Entry) -> bool {
        match self {
            Self::Creation { .. } => true,
            Self::SourceRead(pending) => pending.has(entry),
        }
    }

    fn is_early(self, rule: &MetadataRule, entry: &Entry) -> bool {
        matches!(self, Self::Creation { source_readable: true }) && rule.waits(entry)
    }
}

/// The labels and annotations that `matches`, strongest first, set on a Task whose metadata will be `planned`; they are added to
/// it.
///
/// A key goes to the strongest policy that has a value for it. A value of the creator stays, with a warning, unless the policy
/// overrides it. A value that cannot be rendered is left out, with a warning; it never stops a Task. A value that is set only
/// once the issue source has been read reserves its key: a weaker policy does not set it meanwhile.
pub(crate) fn findings<'a>(
    matches: &[SectionMatch<'a, &'a MetadataRule>],
    values: &mut Values<'_>,
    planned: &mut Planned,
    stage: Stage<'_>,
) -> Vec<Finding<'a>> {
    let mut findings = Vec::new();
    let mut taken = BTreeSet::new();
    let mut skipped = Vec::new();
    let mut waiting = Pending::default();
    for matched in matches.iter().filter(|matched| matched.mode != Mode::Off) {
        let enforced = matched.mode == Mode::Enforce;
        let mut report = Report::default();
        for entry in &matched.rule.entries {
            let (kind, key) = (entry.kind, &*entry.key);
            if taken.contains(&(kind, key)) || !stage.concerns(entry) {
                continue;
            }
            let existing = planned.get(kind, key);
            if stage.is_early(matched.rule, entry) {
                if existing.is_none() || matched.rule.override_existing {
                    report.waiting.push(key.to_owned());
                    if enforced {
                        waiting.add(entry);
                    }
                }
                if enforced {
                    taken.insert((kind, key));
                }
                continue;
            }
            let rendered = values.of(matched.rule, entry);
            let Some(value) = rendered.value() else {
                match (rendered, existing) {
                    (Rendered::Skipped(why), None) => report.skipped.push((key, why.clone())),
                    (Rendered::Exhausted(why), _) => report.exhausted.push((key, why.clone())),
                    _ => {}
                }
                continue;
            };
            if enforced {
                taken.insert((kind, key));
            }
            if existing == Some(value) {
                continue;
            }
            if existing.is_some() && !matched.rule.override_existing {
                report.kept.push(key.to_owned());
                continue;
            }
            if !planned.has_room(kind, key, value) {
                report.skipped.push((key, NO_ROOM.to_owned()));
                continue;
            }
            if enforced {
                planned.set(kind, key, value);
            }
            report.edits.push(Edit::set(kind, key, value));
        }
        report.sum_up();
        if enforced {
            skipped.extend(report.skipped.iter().cloned());
        }
        findings.extend(report.findings(matched));
    }
    let notes = [planned.note(&skipped), planned.wait(waiting)];
    let notes: Vec<_> = notes
        .into_iter()
        .flatten()
        .map(|(key, value)| Edit::set(KeyKind::Annotation, key, &value))
        .collect();
    if let Some(matched) = matches.iter().find(|matched| matched.mode == Mode::Enforce)
        && !notes.is_empty()
    {
        let keys = notes.iter().filter_map(Edit::key).map(ToOwned::to_owned).collect();
        let detail = Detail::MetadataSet(keys);
        findings.push(Finding::new(Section::Metadata, matched, detail, Effect::Change(notes)));
    }
    findings
}

/// What one policy does to a Task's labels and annotations.
#[derive(Debug, Default)]
struct Report<'a> {
    edits: Vec<Edit>,
    kept: Vec<String>,
    waiting: Vec<String>,
    skipped: Vec<(&'a str, String)>,
    /// Keys for which the budget did not suffice.
    exhausted: Vec<(&'a str, String)>,
}

impl Report<'_> {
    /// Reports all keys for which the budget did not suffice under the first of them: there may be thousands.
    fn sum_up(&mut self) {
        let exhausted = std::mem::take(&mut self.exhausted);
        let more = exhausted.len().saturating_sub(1);
        if let Some((key, why)) = exhausted.into_iter().next() {
            let more = if more > 0 {
                format!(", and so are {more} more keys")
            } else {
                String::new()
            };
            self.skipped.push((key, format!("{why}{more}")));
        }
    }

    fn findings<'a>(self, matched: &SectionMatch<'a, &'a MetadataRule>) -> Vec<Finding<'a>> {
        let finding = |detail, effect| Finding::new(Section::Metadata, matched, detail, effect);
        let mut findings = Vec::new();
        if !self.edits.is_empty() {
            let keys = self.edits.iter().filter_map(Edit::key).map(ToOwned::to_owned).collect();
            findings.push(finding(Detail::MetadataSet(keys), Effect::Change(self.edits)));
        }
        if !self.kept.is_empty() {
            findings.push(finding(Detail::MetadataKept(self.kept), Effect::Warn));
        }
        if !self.waiting.is_empty() {
            findings.push(finding(Detail::MetadataPending(self.waiting), Effect::Warn));
        }
        findings.extend(self.skipped.into_iter().map(|(key, why)| {
            let key = key.to_owned();
            finding(Detail::MetadataSkipped { key, why }, Effect::Warn)
        }));
        findings
    }
}

/// The rendered entries for one object, each rendered once for a review, however often labels make further policies apply.
#[derive(Debug)]
pub(crate) struct Values<'s> {
    rendering: Rendering<'s>,
    made: HashMap<*const Entry, Rendered>,
}

impl<'s> Values<'s> {
    /// For the Task of `input`, without the keys that are `managed`, within the budget of a review.
    pub(crate) fn new(input: TemplateInput<'s>, managed: Managed<'s>) -> Self {
        Self {
            rendering: Rendering::new(input, Sees::Unmanaged(managed), Budget::default()),
            made: HashMap::new(),
        }
    }

    /// The value of `entry`, one of `rule`.
    pub(crate) fn of(&mut self, rule: &MetadataRule, entry: &Entry) -> &Rendered {
        let rendering = &mut self.rendering;
        self.made
            .entry(std::ptr::from_ref(entry))
            .or_insert_with(|| rule.render(entry, rendering))
    }

    /// The same object, for what else is rendered over it.
    pub(crate) fn rendering(&mut self) -> &mut Rendering<'s> {
        &mut self.rendering
    }

    /// What is left of the budget.
    pub(crate) fn budget(&self) -> Budget {
        self.rendering.budget()
    }
}

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

/// The labels and annotations that the metadata section of `policy` sets on the Task of `input`, from the same compiled templates as
/// at admission. Empty when it has none.
///
/// Only this policy counts: stronger policies, its selector and its mode are ignored.
pub fn preview(policy: &Policy, input: &TemplateInput<'_>) -> Vec<PreviewLine> {
    let set = PolicySet::new([policy.clone()]);
    let mut values = Values::new(*input, set.managed(input.namespace));
    let planned = Planned::of(input.object);
    let rule = policy.metadata().map(|section| section.rule);
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
                kind: entry.kind.into(),
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
