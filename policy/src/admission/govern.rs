//! Finds the policies that apply to a request, the labels and annotations that they set, and the Task's work item.

use taskgate_api::Mode;

use crate::{
    decision::{AdmissionContext, Finding, Governed, Kind, Operation, Phase, Request},
    matching::{Sections, find_item},
    metadata::{self, Planned, Stage, Values},
    template::Budget,
};

/// How often labels that a policy sets may make a further policy apply. A longer chain is cut there.
const MAX_ROUNDS: usize = 16;

/// Finds the policies that apply to `request`.
///
/// Only a CREATE of a Task or of a Task's Job is governed; whatever time of deletion it states, which Kubernetes 1.37 drops after
/// admission.
///
/// Labels that a policy sets can make another policy apply. Selection is therefore repeated with the labels that the
/// Task will have, until nothing new is set: otherwise a second pass over our own output would add to it.
pub fn govern<'a>(request: &'a Request<'a>, context: &'a AdmissionContext<'a>) -> Governed<'a> {
    let mut governed = Governed {
        request,
        context,
        task: None,
        sections: Sections::default(),
        metadata: Vec::new(),
        item_key_error: None,
        key_was_rendered: false,
        budget: Budget::default(),
        item: None,
    };
    let governable = request.operation == Operation::Create && !context.policies.is_empty();
    let Some(task) = request.task(context).filter(|_| governable) else {
        return governed;
    };
    let scope = request.scope(context);
    let input = request.template_input(context);
    let managed = scope.managed();
    let mut planned = Planned::of(input.object);
    let mut attributes = scope.attributes(input.object);
    governed.sections = scope.select(&attributes);
    if request.kind == Kind::Task && request.phase == Phase::Mutating {
        let mut values = Values::new(input, managed);
        let stage = Stage::Creation {
            source_readable: metadata::has_readable_source(&input),
        };
        for _ in 0..MAX_ROUNDS {
            let matches = &governed.sections.metadata;
            let found = metadata::findings(matches, &mut values, &mut planned, stage);
            governed.metadata.retain(|finding| !finding.planned().is_empty());
            governed.metadata.extend(found);
            let labels = planned.selectable(&managed);
            if !context.policies.selects_task_labels || attributes.labels == labels {
                break;
            }
            attributes.labels = labels;
            governed.sections = scope.select(&attributes);
        }
        governed.budget = values.budget();
    }
    if let Some(matched) = governed.sections.failure.filter(|matched| matched.mode != Mode::Off) {
        let planned: Vec<_> = governed.metadata.iter().flat_map(Finding::planned).cloned().collect();
        let item_key = matched.policy.item_key();
        let found = find_item(&input, item_key, &planned, governed.budget);
        governed.key_was_rendered = found.rendered;
        governed.item_key_error = found.error;
        governed.item = found.item;
    }
    governed.task = Some(task);
    governed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use serde_json::json;
    use taskgate_api::kelos_fields::KelosFields;

    use super::*;
    use crate::{admission::decide, decision::KueueInfo, fixtures, issue_source::Workspace};

    /// 64 policies with 64 keys each share one budget, and 64 warnings report the keys that are left out.
    #[test]
    fn all_policies_together_have_one_budget() {
        let section = |policy: usize| {
            let labels: serde_json::Map<_, _> = (0..64)
                .map(|key| (format!("p{policy:02}-k{key:02}"), json!("{{ task.metadata.name }}")))
                .collect();
            json!({"metadata": {"labels": labels}, "failurePolicy": {"itemKey": "{{ task.metadata.name }}"}})
        };
        let policies = fixtures::policies((0..64).map(section));
        let task = json!({"metadata": {"name": "fixer-42", "labels": {"kelos.dev/taskspawner": "fixer"}}, "spec": {}});
        let request = Request {
            phase: Phase::Mutating,
            kind: Kind::Task,
            operation: Operation::Create,
            namespace: "team",
            object: &task,
            sent: &task,
            old: &serde_json::Value::Null,
            user: "me",
            own: false,
            dry_run: false,
        };
        let context = AdmissionContext {
            policies: &policies,
            namespace_labels: &BTreeMap::new(),
            owner_task: None,
            spawner: None,
            workspace: &Workspace::Absent,
            kueue: &KueueInfo::default(),
            kelos_fields: &KelosFields::new(),
        };
        let governed = govern(&request, &context);
        let decision = decide(&governed, None, Timestamp::UNIX_EPOCH);
        // 50 for each render, 24 for each byte of it.
        let rendered = 100_000 / 74;
        let (whole, rest) = (rendered / 64, rendered % 64);
        let left_out = decision.warnings.iter().filter(|warning| warning.contains("left out"));
        assert_eq!(left_out.count(), 64 - whole, "{:?}", decision.warnings);
        let more = format!("and so are {} more keys", 64 - rest - 1);
        assert!(decision.warnings[0].contains(&more), "{}", decision.warnings[0]);
        // Nothing is left for the itemKey, and the ordinary identity is taken.
        let unusable = decision.warnings.iter().any(|warning| warning.contains("itemKey"));
        assert!(unusable && governed.identity().is_some_and(|item| item.key == "fixer/42"));
    }
}
