//! Labels and annotations that policies put on Tasks, and on what a Task leads to (seed 004).
//!
//! ```text
//! when a policy is read:   rule (keys, template) -> MetadataRule
//! when a Task is created:  rule.render (template, label) -> findings (managed, planned)
//! when its Job is created: propagate
//! when its tracker told of the item: late (pending), for what reads it
//! ```

mod keys;
mod label;
mod late;
mod managed;
mod pending;
mod planned;
mod preview;
mod propagate;
mod reads;
mod rule;
mod values;

use std::collections::BTreeSet;

use taskgate_api::Mode;

pub use crate::template::Scope;
pub(crate) use late::is_trackable;
pub use late::{Filling, copy, fill, settle};
pub(crate) use managed::{Keys, Managed};
pub use pending::Pending;
pub(crate) use planned::Planned;
pub use preview::{PreviewLine, preview};
pub(crate) use propagate::findings as propagate;
pub(crate) use rule::{Entry, MetadataRule, Rendered};
pub(crate) use values::Values;

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

/// When keys are set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage<'a> {
    /// The Task is being created; whether its tracker can be asked about its item.
    Creation { trackable: bool },
    /// The tracker has told of the item, for which these keys waited.
    Told(&'a Pending),
}

impl Stage<'_> {
    fn concerns(self, entry: &Entry) -> bool {
        match self {
            Self::Creation { .. } => true,
            Self::Told(pending) => pending.has(entry),
        }
    }

    fn is_early(self, rule: &MetadataRule, entry: &Entry) -> bool {
        matches!(self, Self::Creation { trackable: true }) && rule.waits(entry)
    }
}

/// What `rulings`, strongest first, do to a Task whose metadata will be `planned`; what they set is added to it.
///
/// A key goes to the strongest policy that has a value for it. What the creator set stays, and is told about, unless the
/// policy overrides it. A value that cannot be made is left out and told about; it never stops a Task. One that is to come
/// later has its key already: a weaker policy does not take it in between.
pub(crate) fn findings<'a>(
    rulings: &[Ruling<'a, &'a MetadataRule>],
    values: &mut Values<'_>,
    planned: &mut Planned,
    stage: Stage<'_>,
) -> Vec<Finding<'a>> {
    let mut findings = Vec::new();
    let mut taken = BTreeSet::new();
    let mut skipped = Vec::new();
    let mut waiting = Pending::default();
    for ruling in rulings.iter().filter(|ruling| ruling.mode != Mode::Off) {
        let enforced = ruling.mode == Mode::Enforce;
        let mut told = Told::default();
        for entry in &ruling.rule.entries {
            let (place, key) = (entry.place, &*entry.key);
            if taken.contains(&(place, key)) || !stage.concerns(entry) {
                continue;
            }
            let existing = planned.get(place, key);
            if stage.is_early(ruling.rule, entry) {
                if existing.is_none() || ruling.rule.override_existing {
                    told.waiting.push(key.to_owned());
                    if enforced {
                        waiting.add(entry);
                    }
                }
                if enforced {
                    taken.insert((place, key));
                }
                continue;
            }
            let rendered = values.of(ruling.rule, entry);
            let Some(value) = rendered.value() else {
                match (rendered, existing) {
                    (Rendered::Skipped(why), None) => told.skipped.push((key, why.clone())),
                    (Rendered::Exhausted(why), _) => told.exhausted.push((key, why.clone())),
                    _ => {}
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
        told.sum_up();
        if enforced {
            skipped.extend(told.skipped.iter().cloned());
        }
        findings.extend(told.findings(ruling));
    }
    let notes = [planned.note(&skipped), planned.wait(waiting)];
    let notes: Vec<_> = notes
        .into_iter()
        .flatten()
        .map(|(key, value)| edit(Place::Annotation, key, &value))
        .collect();
    if let Some(ruling) = rulings.iter().find(|ruling| ruling.mode == Mode::Enforce)
        && !notes.is_empty()
    {
        let keys = notes.iter().filter_map(Edit::key).map(ToOwned::to_owned).collect();
        let detail = Detail::MetadataSet { keys };
        findings.push(Finding::new(Section::Metadata, ruling, detail, Effect::Change(notes)));
    }
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
    waiting: Vec<String>,
    skipped: Vec<(&'a str, String)>,
    /// What the budget did not suffice for.
    exhausted: Vec<(&'a str, String)>,
}

impl Told<'_> {
    /// Tells of all that the budget did not suffice for under the first of the keys: there may be thousands.
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
        if !self.waiting.is_empty() {
            findings.push(finding(Detail::MetadataWaits { keys: self.waiting }, Effect::Tell));
        }
        findings.extend(self.skipped.into_iter().map(|(key, why)| {
            let key = key.to_owned();
            finding(Detail::MetadataSkipped { key, why }, Effect::Tell)
        }));
        findings
    }
}
