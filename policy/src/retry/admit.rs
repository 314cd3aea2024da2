//! What a Task without a spawner gets at admission so that it is still there when its retry is due: its TTL moved out of the
//! spec, where Kelos acts on it. From then on taskgate does.

use taskgate_api::{Mode, kelos::Task, keys, task_policy::RetriedKind};

use crate::{
    Detail, Section,
    decision::{Effect, Finding},
    patch::Edit,
    select::Governed,
};

/// The edits of retry. Where the failure section is enforced, it moves the TTL itself.
pub(crate) fn findings<'a>(governed: &Governed<'a>, task: Task<'a>) -> Option<Finding<'a>> {
    let ruling = governed.sections.retry?;
    let kept = governed.sections.failure.zip(governed.identity());
    let is_kept = kept.is_some_and(|(ruling, _)| ruling.mode == Mode::Enforce);
    if ruling.mode != Mode::Enforce || is_kept || task.spawner().is_some() || !ruling.rule.covers(RetriedKind::Task) {
        return None;
    }
    let ttl = task.ttl_seconds().and_then(|ttl| i32::try_from(ttl).ok());
    let ttl = ttl.filter(|ttl| *ttl >= 0)?;
    let edits = vec![Edit::RemoveTtl, Edit::Annotation(keys::TTL.into(), ttl.to_string())];
    let detail = Detail::TtlKept { seconds: ttl };
    Some(Finding::new(Section::Retry, &ruling, detail, Effect::Change(edits)))
}
