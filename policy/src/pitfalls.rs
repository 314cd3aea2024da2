//! What Kelos would fail on without a word: told to the creator while somebody is still looking.

use taskgate_api::kelos::{MAX_TASK_NAME, Task};

use crate::{
    Detail, Section, Workspace, canonical,
    decision::{Effect, Finding},
    select::Governed,
};

/// The warnings for `task`, under the strongest policy that governs it.
pub(crate) fn findings<'a>(governed: &Governed<'a>, task: Task<'a>) -> Vec<Finding<'a>> {
    let Some(ruling) = governed.sections.any else {
        return Vec::new();
    };
    let mut details = Vec::new();
    if let Some(length) = task
        .metadata()
        .name()
        .map(str::len)
        .filter(|length| *length > MAX_TASK_NAME)
    {
        details.push(Detail::NameTooLong { length });
    }
    let fields = task.spec().map(canonical::unstable_fields).unwrap_or_default();
    if !fields.is_empty() {
        details.push(Detail::SpecUnstable { fields });
    }
    if let (Some(name), Workspace::Absent) = (task.workspace(), governed.facts.workspace) {
        details.push(Detail::WorkspaceMissing { name: name.to_owned() });
    }
    details
        .into_iter()
        .map(|detail| Finding::new(Section::Pitfalls, &ruling, detail, Effect::Tell))
        .collect()
}
