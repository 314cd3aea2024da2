//! Which policies speak for a Task that exists already: for people who ask.

use std::collections::BTreeMap;

use serde_json::Value;
use taskgate_api::Mode;

use crate::{PolicyName, PolicySet, Section, SpawnerFacts, ruling::sections_of, select::Ruling};

/// A section that governs a Task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Governing<'a> {
    /// The section.
    pub section: Section,
    /// The policy that it belongs to.
    pub policy: &'a PolicyName,
    /// How far it may go; never `Off`.
    pub mode: Mode,
}

impl<'a> Governing<'a> {
    fn of<T>(section: Section, ruling: &Ruling<'a, T>) -> Option<Self> {
        (ruling.mode != Mode::Off).then(|| Self {
            section,
            policy: ruling.policy.name(),
            mode: ruling.mode,
        })
    }
}

/// The sections that govern the Task `object` in `namespace`: one of each kind, and of `metadata` all that merge.
pub fn governing<'a>(
    policies: &'a PolicySet,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    object: &Value,
    spawner: Option<&SpawnerFacts>,
) -> Vec<Governing<'a>> {
    let sections = sections_of(policies, namespace, namespace_labels, object, spawner);
    let failure = sections.failure.iter();
    let failure = failure.filter_map(|ruling| Governing::of(Section::FailurePolicy, ruling));
    let queue = sections.queue.iter();
    let queue = queue.filter_map(|ruling| Governing::of(Section::Queue, ruling));
    let metadata = sections.metadata.iter();
    let metadata = metadata.filter_map(|ruling| Governing::of(Section::Metadata, ruling));
    let cancellation = sections.cancellation.iter();
    let cancellation = cancellation.filter_map(|ruling| Governing::of(Section::Cancellation, ruling));
    failure.chain(cancellation).chain(queue).chain(metadata).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::policy;

    #[test]
    fn each_section_has_its_policy_and_one_that_is_off_governs_nothing() {
        let policies = PolicySet::new([
            policy(
                "wide",
                json!({"failurePolicy": {"maxRetriesPerItem": 3}, "metadata": {"labels": {"a": "b"}}}),
            ),
            policy(
                "narrow",
                json!({
                    "priority": 1, "selector": {"spawnerNames": ["fixer"]},
                    "failurePolicy": {"mode": "Off"}, "queueName": "small", "queueMode": "Observe",
                }),
            ),
        ]);
        let found = |spawner: &str| {
            let task = json!({"metadata": {"name": "t", "labels": {"kelos.dev/taskspawner": spawner}}});
            let found = governing(&policies, "team", &BTreeMap::new(), &task, None);
            let text = found
                .iter()
                .map(|found| format!("{}={}/{:?}", found.section.as_str(), found.policy, found.mode));
            text.collect::<Vec<_>>()
        };
        let queue = "queue=TaskPolicy/narrow/Observe";
        let metadata = "metadata=TaskPolicy/wide/Enforce";
        assert_eq!(found("fixer"), [queue, metadata]);
        assert_eq!(found("other"), ["failurePolicy=TaskPolicy/wide/Enforce", metadata]);
    }
}
