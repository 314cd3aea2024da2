//! The story of a Workload of Foreman's.

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::{foreman, keys, metadata::Metadata, task_policy::RetriedKind};
use taskgate_policy::retry::{Retried, RunPhase};

use super::{
    command::command,
    item, policy,
    scene::Scene,
    story::{Line, Story, Topic},
};

pub(super) fn story(scene: &Scene<'_>, workload: &Value, now: Timestamp) -> Story {
    let metadata = Metadata::of(workload);
    let name = metadata.name().unwrap_or_default();
    let phase = foreman::Workload::of(workload).phase();
    let state = if phase.is_empty() { "New" } else { phase };
    let mut lines = vec![Line::new(Topic::State, format!("Foreman says {state}"))];
    if let Some(label) = metadata.label(foreman::CREATED_BY) {
        lines.push(Line::new(Topic::State, format!("it was made by {label}")));
    }
    if let Some(of) = metadata.annotation(keys::RETRY_OF) {
        lines.push(Line::new(
            Topic::Admission,
            format!("taskgate made it to run the one with UID {of} again"),
        ));
    }
    lines.extend(policy::of_workload(scene, workload));
    let retried = Retried::of(RetriedKind::Workload, workload);
    let remembered = retried.and_then(|retried| {
        let label = metadata.label(keys::WORK_ITEM).map(ToOwned::to_owned);
        scene.item_named(&label.unwrap_or_else(|| retried.item().work_item_name()))
    });
    let failed = retried.is_some_and(|retried| retried.phase() == RunPhase::Failed);
    match remembered {
        Some(found) => lines.extend(item::lines(scene, found, now)),
        None if failed => {
            let again = command(["taskgate", "retry", &format!("workload/{name}"), "-n", scene.namespace]);
            let line = Line::new(
                Topic::Next,
                "it stays as it is: nothing is remembered of it, and nobody runs it again",
            );
            lines.push(line.command(again, "create on workitems; delete and create on workloads"));
        }
        None => {}
    }
    Story::new(scene, &format!("Workload {name}"), state, lines)
}
