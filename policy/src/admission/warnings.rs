//! Warnings for the creator of a Task that Kelos would never start, without reporting why.

use taskgate_api::kelos::{MAX_TASK_NAME, Task};

use super::unstable_fields::unstable_fields;
use crate::{
    decision::{Detail, Effect, Finding, Governed},
    issue_source::Workspace,
    matching::Section,
};

/// The warnings for `task`, under the strongest policy that governs it.
pub(crate) fn findings<'a>(governed: &Governed<'a>, task: Task<'a>) -> Vec<Finding<'a>> {
    let Some(matched) = governed.sections.any else {
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
    let fields = task.spec().map(unstable_fields).unwrap_or_default();
    if !fields.is_empty() {
        details.push(Detail::SpecUnstable { fields });
    }
    if let (Some(name), Workspace::Absent) = (task.workspace(), governed.context.workspace) {
        details.push(Detail::WorkspaceMissing { name: name.to_owned() });
    }
    details
        .into_iter()
        .map(|detail| Finding::new(Section::Warnings, &matched, detail, Effect::Warn))
        .collect()
}
