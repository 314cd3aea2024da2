//! Labels and annotations that policies put on Tasks, and on what a Task leads to (seed 004).
//!
//! ```text
//! when a policy is read:   rule (keys, text: tera or go, sample) -> MetadataRule
//! when a Task is created:  context (item, managed) -> rule.render (label) -> findings (planned)
//! when its Job is created: propagate
//! ```

mod context;
mod engine;
mod filters;
mod go;
mod item;
mod keys;
mod label;
mod managed;
mod planned;
mod preview;
mod propagate;
mod rule;
mod sample;
mod scan;
mod tera;
mod text;

use std::collections::BTreeSet;

use taskgate_api::Mode;

pub(crate) use context::Context;
pub use context::Scope;
pub(crate) use managed::{Keys, Managed};
pub(crate) use planned::Planned;
pub use preview::{PreviewLine, preview};
pub(crate) use propagate::findings as propagate;
pub(crate) use rule::{MetadataRule, Rendered};
pub(crate) use sample::Moment;
pub(crate) use text::Text;

use crate::{
    Detail, Section,
    decision::{Effect, Finding},
    patch::Edit,
    select::Ruling,
};

/// Where a key is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    Label,
    Annotation,
}

/// What `rulings`, strongest first, do to a Task whose metadata will be `planned`; what they set is added to it.
///
/// A key goes to the strongest policy that has a value for it. What the creator set stays, and is told about, unless the
/// policy overrides it. A value that cannot be made is left out and told about; it never stops a Task.
pub(crate) fn findings<'a>(
    rulings: &[Ruling<'a, &'a MetadataRule>],
    context: &Context,
    planned: &mut Planned,
) -> Vec<Finding<'a>> {
    let mut findings = Vec::new();
    let mut taken = BTreeSet::new();
    let mut skipped = Vec::new();
    for ruling in rulings.iter().filter(|ruling| ruling.mode != Mode::Off) {
        let enforced = ruling.mode == Mode::Enforce;
        let mut told = Told::default();
        for entry in &ruling.rule.entries {
            let (place, key) = (entry.place, entry.key.as_str());
            if taken.contains(&(place, key)) {
                continue;
            }
            let existing = planned.get(place, key);
            let rendered = ruling.rule.render(entry, context);
            let Some(value) = rendered.value() else {
                if let (Rendered::Skipped(why), None) = (&rendered, existing) {
                    told.skipped.push((key, why.clone()));
                }
                continue;
            };
            if enforced {
                taken.insert((place, key));
            }
            if existing == Some(value) {
                continue;
            }
            if existing.is_some() && !ruling.rule.override_existing {
                told.kept.push(key.to_owned());
                continue;
            }
            if !planned.has_room(place, key, value) {
                told.skipped.push((key, planned::NO_ROOM.to_owned()));
                continue;
            }
            if enforced {
                planned.set(place, key, value);
            }
            told.edits.push(edit(place, key, value));
        }
        if enforced {
            skipped.extend(told.skipped.iter().cloned());
        }
        findings.extend(told.findings(ruling));
    }
    let note = planned
        .note(&skipped)
        .zip(rulings.iter().find(|ruling| ruling.mode == Mode::Enforce));
    findings.extend(note.map(|((key, value), ruling)| {
        let keys = vec![key.to_owned()];
        let note = edit(Place::Annotation, key, &value);
        Finding::new(
            Section::Metadata,
            ruling,
            Detail::MetadataSet { keys },
            Effect::Change(vec![note]),
        )
    }));
    findings
}

fn edit(place: Place, key: &str, value: &str) -> Edit {
    let (key, value) = (key.to_owned(), value.to_owned());
    match place {
        Place::Label => Edit::Label(key, value),
        Place::Annotation => Edit::Annotation(key, value),
    }
}

/// What one policy has to tell.
#[derive(Debug, Default)]
struct Told<'a> {
    edits: Vec<Edit>,
    kept: Vec<String>,
    skipped: Vec<(&'a str, String)>,
}

impl Told<'_> {
    fn findings<'a>(self, ruling: &Ruling<'a, &'a MetadataRule>) -> Vec<Finding<'a>> {
        let finding = |detail, effect| Finding::new(Section::Metadata, ruling, detail, effect);
        let mut findings = Vec::new();
        if !self.edits.is_empty() {
            let keys = self.edits.iter().filter_map(Edit::key).map(ToOwned::to_owned).collect();
            findings.push(finding(Detail::MetadataSet { keys }, Effect::Change(self.edits)));
        }
        if !self.kept.is_empty() {
            findings.push(finding(Detail::MetadataKept { keys: self.kept }, Effect::Tell));
        }
        findings.extend(self.skipped.into_iter().map(|(key, why)| {
            let key = key.to_owned();
            finding(Detail::MetadataSkipped { key, why }, Effect::Tell)
        }));
        findings
    }
}
