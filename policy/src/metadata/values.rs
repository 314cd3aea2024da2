//! The values of keys, each made once for a review, however often labels make further policies apply.

use std::collections::HashMap;

use super::{Entry, Managed, MetadataRule, Rendered, Scope};
use crate::template::{Budget, Rendering, Sees};

/// What entries come to for one object.
#[derive(Debug)]
pub(crate) struct Values<'s> {
    rendering: Rendering<'s>,
    made: HashMap<*const Entry, Rendered>,
}

impl<'s> Values<'s> {
    /// For the Task of `scope`, without the keys that are `managed`, within the budget of a review.
    pub(crate) fn new(scope: Scope<'s>, managed: Managed<'s>) -> Self {
        Self {
            rendering: Rendering::new(scope, Sees::Unmanaged(managed), Budget::default()),
            made: HashMap::new(),
        }
    }

    /// What `entry`, one of `rule`, comes to.
    pub(crate) fn of(&mut self, rule: &MetadataRule, entry: &Entry) -> &Rendered {
        let rendering = &mut self.rendering;
        self.made
            .entry(std::ptr::from_ref(entry))
            .or_insert_with(|| rule.render(entry, rendering))
    }

    /// The same object, for what else is rendered over it.
    pub(crate) fn rendering(&mut self) -> &mut Rendering<'s> {
        &mut self.rendering
    }

    /// What is left of the budget.
    pub(crate) fn budget(&self) -> Budget {
        self.rendering.budget()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use serde_json::json;

    use crate::{Facts, Kind, KueueFacts, Operation, Phase, Request, Workspace, decide, fixtures, govern};

    /// What 64 policies with 64 keys each may take is known beforehand, and what they do not get is told in 64 sentences.
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
        let facts = Facts {
            policies: &policies,
            namespace_labels: &BTreeMap::new(),
            owner_task: None,
            spawner: None,
            workspace: &Workspace::Absent,
            kueue: KueueFacts::default(),
        };
        let governed = govern(&request, &facts);
        let decision = decide(&governed, None, Timestamp::UNIX_EPOCH);
        // 50 for each render, 24 for each byte of it.
        let rendered = 100_000 / 74;
        let (whole, rest) = (rendered / 64, rendered % 64);
        let told = decision.warnings.iter().filter(|warning| warning.contains("left out"));
        assert_eq!(told.count(), 64 - whole, "{:?}", decision.warnings);
        let more = format!("and so are {} more keys", 64 - rest - 1);
        assert!(decision.warnings[0].contains(&more), "{}", decision.warnings[0]);
        // Nothing is left for the itemKey, and the ordinary identity is taken.
        let unusable = decision.warnings.iter().any(|warning| warning.contains("itemKey"));
        assert!(unusable && governed.identity().is_some_and(|item| item.key == "fixer/42"));
    }
}
