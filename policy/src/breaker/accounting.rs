//! What admission adds to a Task so that its end is counted exactly once.

use taskgate_api::{Mode, keys, moved_field};

use crate::{
    decision::{Detail, Effect, Finding, Governed},
    kubernetes::Edit,
    matching::Section,
};

/// The edits of accounting: finalizer, item label, the key where a template gave it, and the TTL moved out of the spec.
///
/// Only where the failure section is enforced: otherwise a Task stays byte-identical, and a finalizer would never be removed.
pub(crate) fn findings<'a>(governed: &Governed<'a>) -> Vec<Finding<'a>> {
    let Some((matched, item)) = governed.sections.failure.zip(governed.identity()) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if let Some(message) = &governed.item_key_error {
        let detail = Detail::ItemKeyUnusable(message.clone());
        findings.push(Finding::new(Section::FailurePolicy, &matched, detail, Effect::Warn));
    }
    if matched.mode != Mode::Enforce {
        return findings;
    }
    let work_item = item.work_item_name();
    let mut edits = vec![
        Edit::Finalizer(keys::ACCOUNTING.into()),
        Edit::Label(keys::WORK_ITEM.into(), work_item.clone()),
    ];
    if governed.key_was_rendered {
        edits.push(Edit::Annotation(keys::ITEM_KEY.into(), item.key.clone()));
    }
    // The spec wins over an annotation of the creator.
    edits.extend(
        Edit::move_field(moved_field::TTL, governed.request.object)
            .into_iter()
            .flatten(),
    );
    let detail = Detail::Accounted(work_item);
    findings.push(Finding::new(
        Section::FailurePolicy,
        &matched,
        detail,
        Effect::Change(edits),
    ));
    findings
}
