//! A request and the policies that apply to it.

use taskgate_api::{Mode, kelos::Task};

use super::{AdmissionContext, Finding, Kind, Phase, Request};
use crate::{
    matching::{ItemIdentity, Sections},
    template::Budget,
};

/// A request together with the policies that apply to it.
#[derive(Clone, Debug)]
pub struct Governed<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) context: &'a AdmissionContext<'a>,
    pub(crate) task: Option<Task<'a>>,
    pub(crate) sections: Sections<'a>,
    /// The findings of the metadata sections.
    pub(crate) metadata: Vec<Finding<'a>>,
    /// Why the policy's `itemKey` gives nothing.
    pub(crate) item_key_error: Option<String>,
    /// Whether the identity comes from the policy's `itemKey`.
    pub(crate) key_was_rendered: bool,
    /// The work that templates may still take.
    pub(crate) budget: Budget,
    pub(crate) item: Option<ItemIdentity>,
}

impl Governed<'_> {
    /// The work item whose status the decision needs, if it needs one.
    pub fn item(&self) -> Option<&ItemIdentity> {
        let matched = self.sections.failure?;
        let limited = matched.rule.max_retries_per_item > 0 || matched.rule.backoff.is_some();
        let asked = match self.request.kind {
            Kind::Task => self.request.phase == Phase::Validating,
            Kind::Job => matched.mode == Mode::Enforce,
            _ => false,
        };
        self.item.as_ref().filter(|_| limited && asked)
    }

    /// The work item that the Task belongs to, if a failure section applies.
    pub fn identity(&self) -> Option<&ItemIdentity> {
        self.item.as_ref()
    }

    /// Whether the failure section is enforced. Otherwise a cached status is enough.
    pub fn is_enforced(&self) -> bool {
        self.sections
            .failure
            .is_some_and(|matched| matched.mode == Mode::Enforce)
    }
}
