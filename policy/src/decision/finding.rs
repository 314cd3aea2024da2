//! From findings to a decision: the policy's mode is applied here, last, and nowhere else.

use std::collections::BTreeMap;

use json_patch::Patch;
use serde_json::Value;
use strum::{Display, IntoStaticStr};
use taskgate_api::Mode;

use super::{CancelDetail, Detail, Phase, Reason};
use crate::{
    kubernetes::{Edit, MAX_MESSAGE, clip, patch},
    matching::{Policy, Section, SectionMatch},
};

/// The decision about a request, and its reasons.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Why the request is denied; `None`: it is allowed.
    pub denial: Option<Denial>,
    /// The smallest JSON patch that makes the changes. Empty outside the mutating phase and on a denial.
    pub patch: Patch,
    /// The warnings for the user, each at most 256 characters.
    pub warnings: Vec<String>,
    /// The audit annotations, each at most 256 characters.
    pub audit: BTreeMap<&'static str, String>,
    /// Everything that was found, whatever the mode.
    pub reasons: Vec<Reason>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The HTTP status: 403 for what a policy forbids, 422 for an object of ours that is wrong.
    pub code: u16,
    /// The message for the user.
    pub message: String,
}

/// A decision in one word: a closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Verdict {
    /// Passed as it was.
    Unchanged,
    /// Passed with a patch.
    Patched,
    /// Passed as it was, with a warning.
    Warned,
    /// Refused.
    Denied,
}

impl Decision {
    /// Whether the request passes.
    pub fn allowed(&self) -> bool {
        self.denial.is_none()
    }

    /// The decision in one word.
    pub fn verdict(&self) -> Verdict {
        if self.denial.is_some() {
            Verdict::Denied
        } else if !self.patch.0.is_empty() {
            Verdict::Patched
        } else if !self.warnings.is_empty() {
            Verdict::Warned
        } else {
            Verdict::Unchanged
        }
    }
}

/// A finding of a section, before its mode is applied.
#[derive(Clone, Debug)]
pub(crate) struct Finding<'a> {
    section: Section,
    policy: Option<&'a Policy>,
    mode: Mode,
    detail: Detail,
    effect: Effect,
}

/// What follows from a finding when its section is enforced.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// The object is changed.
    Change(Vec<Edit>),
    /// The request is refused with 403.
    Deny,
    /// The request is refused with 422.
    Reject,
    /// The creator gets a warning.
    Warn,
}

impl<'a> Finding<'a> {
    pub(crate) fn new<T>(section: Section, matched: &SectionMatch<'a, T>, detail: Detail, effect: Effect) -> Self {
        Self {
            section,
            policy: Some(matched.policy),
            mode: matched.mode,
            detail,
            effect,
        }
    }

    /// A finding about one of taskgate's own objects: no policy is behind it.
    pub(crate) fn own(detail: Detail, effect: Effect) -> Self {
        Self {
            section: Section::Write,
            policy: None,
            mode: Mode::Enforce,
            detail,
            effect,
        }
    }

    /// A finding about a cancellation: a user's request does not depend on any policy.
    pub(crate) fn cancellation(detail: CancelDetail, effect: Effect) -> Self {
        Self {
            section: Section::Cancellation,
            ..Self::own(Detail::Cancellation(detail), effect)
        }
    }

    /// A finding about the queue that a Task names in its own field: it does not depend on any policy.
    pub(crate) fn queue(detail: Detail, effect: Effect) -> Self {
        Self {
            section: Section::Queue,
            ..Self::own(detail, effect)
        }
    }

    /// The finding as a sentence of at most 256 characters.
    pub(crate) fn message(&self) -> String {
        self.clone().split().0.message()
    }

    /// The reason, and the effect.
    fn split(self) -> (Reason, Effect) {
        let reason = Reason {
            section: self.section,
            policy: self.policy.map(|policy| policy.name().clone()),
            mode: self.mode,
            detail: self.detail,
        };
        (reason, self.effect)
    }

    /// The changes that will be made to the object.
    pub(crate) fn planned(&self) -> &[Edit] {
        match &self.effect {
            Effect::Change(edits) if self.mode == Mode::Enforce => edits,
            _ => &[],
        }
    }
}

/// Makes a decision about `object` of `findings`: `Observe` only records, `Warn` warns of what would have been done,
/// `Enforce` does it.
pub(crate) fn assemble(object: &Value, phase: Phase, findings: Vec<Finding<'_>>) -> Decision {
    let mut decision = Decision::default();
    let mut edits = Vec::new();
    for finding in findings {
        let (reason, effect) = finding.split();
        match (reason.mode, effect) {
            (Mode::Off, _) => continue,
            (Mode::Observe, _) => {}
            (Mode::Warn, _) | (Mode::Enforce, Effect::Warn) => decision.warnings.push(reason.message()),
            (Mode::Enforce, Effect::Change(more)) => edits.extend(more),
            (Mode::Enforce, Effect::Deny) => deny(&mut decision, 403, &reason),
            (Mode::Enforce, Effect::Reject) => deny(&mut decision, 422, &reason),
        }
        decision.reasons.push(reason);
    }
    if decision.allowed() && phase == Phase::Mutating {
        decision.patch = patch(object, &edits);
    }
    if !decision.reasons.is_empty() {
        audit(&mut decision);
    }
    decision
}

/// The first denial stands; a second one would only make the message longer than the API server allows.
fn deny(decision: &mut Decision, code: u16, reason: &Reason) {
    decision.denial.get_or_insert_with(|| Denial {
        code,
        message: reason.message(),
    });
}

fn audit(decision: &mut Decision) {
    let list = |values: Vec<String>| {
        let mut unique: Vec<String> = Vec::new();
        for value in values {
            if !unique.contains(&value) {
                unique.push(value);
            }
        }
        clip(&unique.join(","), MAX_MESSAGE)
    };
    let reasons = &decision.reasons;
    let codes = list(
        reasons
            .iter()
            .map(|reason| format!("{}/{:?}", reason.code(), reason.mode))
            .collect(),
    );
    let policies = list(
        reasons
            .iter()
            .filter_map(|reason| Some(reason.policy.as_ref()?.to_string()))
            .collect(),
    );
    let verdict = decision.verdict().to_string();
    decision.audit.insert("verdict", verdict);
    decision.audit.insert("reasons", codes);
    if !policies.is_empty() {
        decision.audit.insert("policies", policies);
    }
}
