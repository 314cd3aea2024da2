//! What only the tracker knows, put on the Task once it has told: the controller's part of the same rules.

use serde_json::{Value, json};
use taskgate_api::{Mode, job::Job, kelos::Task, keys, metadata::Metadata, task_policy::PropagationTarget};

use super::{Pending, Planned, Scope, Stage, Values, findings, propagate};
use crate::{
    PolicySet,
    decision::Finding,
    patch::{Edit, merge},
    ruling::sections_of,
    select::Sections,
    source::SourceKey,
};

/// What is to be written to a Task.
#[derive(Clone, Debug, PartialEq)]
pub struct Filling {
    /// A merge patch of its metadata.
    pub change: Value,
    /// What was left out, if anything was: what is to be published.
    pub left_out: Option<String>,
}

/// Whether the tracker of the Task of `scope` can be asked about its item.
pub(crate) fn is_trackable(scope: &Scope<'_>) -> bool {
    scope.spawner.is_some_and(|spawner| spawner.has_tracker) && has_number(scope)
}

pub(super) fn has_number(scope: &Scope<'_>) -> bool {
    SourceKey::of(scope.namespace, Task::of(scope.object)).is_some_and(|key| key.number().is_some())
}

fn sections_for<'a>(policies: &'a PolicySet, scope: &Scope<'_>) -> Sections<'a> {
    sections_of(
        policies,
        scope.namespace,
        scope.namespace_labels,
        scope.object,
        scope.spawner,
    )
}

/// The labels and annotations that the Task of `scope` waits for, now that `scope.tracked` is known. They are made once:
/// what cannot be made now is left out.
///
/// Who created the Task is not known any more.
pub fn fill(policies: &PolicySet, scope: &Scope<'_>) -> Filling {
    let pending = Pending::of(scope.object);
    let sections = sections_for(policies, scope);
    let mut values = Values::new(*scope, policies.managed(scope.namespace));
    let mut planned = Planned::of(scope.object);
    let found = findings(&sections.metadata, &mut values, &mut planned, Stage::Told(&pending));
    let mut edits: Vec<_> = found.iter().flat_map(Finding::planned).cloned().collect();
    let left_out = edits.iter().find_map(|edit| match edit {
        Edit::Annotation(key, value) if key == keys::SKIPPED => Some(value.clone()),
        _ => None,
    });
    let copied = sections.metadata.iter().any(|ruling| {
        let rule = ruling.rule;
        let reaches = [PropagationTarget::Job, PropagationTarget::Pod].map(|target| rule.reaches(target));
        ruling.mode == Mode::Enforce && reaches.contains(&true) && rule.entries.iter().any(|entry| pending.has(entry))
    });
    let key = keys::PENDING.to_owned();
    let rest = pending.made(copied);
    edits.push(if rest == Pending::default() {
        Edit::RemoveAnnotation(key)
    } else {
        Edit::Annotation(key, rest.to_string())
    });
    Filling {
        change: merge(&edits)["metadata"].take(),
        left_out,
    }
}

/// What the Job of the Task of `scope` gets of the Task's labels and annotations: the same as if it were made now. A merge
/// patch; `None` if it has them.
///
/// Pods get them through the Job's pod template, and that is the API server's to keep once the Job has started: then `pods`
/// has to be false, or the Job suspended.
pub fn copy(policies: &PolicySet, scope: &Scope<'_>, job: &Value, pods: bool) -> Option<Value> {
    let sections = sections_for(policies, scope);
    let rulings = sections.metadata.iter().filter(|ruling| ruling.mode == Mode::Enforce);
    let pods = pods && Job::of(job).is_suspended() && job.pointer("/status/startTime").is_none_or(Value::is_null);
    let task = Metadata::of(scope.object);
    let edits: Vec<_> = rulings
        .flat_map(|ruling| propagate::edits(ruling.rule, task, job, pods))
        .collect();
    (!edits.is_empty()).then(|| merge(&edits))
}

/// A merge patch of the metadata of a Task about which nothing is left to be done.
pub fn settle() -> Value {
    json!({"annotations": {keys::PENDING: null}})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{SpawnerFacts, fixtures, source::SourceItem};

    fn policies(sections: &[Value]) -> PolicySet {
        let sections = sections.iter().enumerate();
        fixtures::policies(sections.map(|(index, section)| json!({"priority": 9 - index, "metadata": section})))
    }

    fn filled(sections: &[Value], labels: &Value, pending: &str) -> Filling {
        let object = json!({"metadata": {
            "name": "fixer-42", "labels": labels, "annotations": {"taskgate.dev/metadata-pending": pending},
        }});
        let item = SourceItem {
            title: "Crash {{.URL}}".into(),
            labels: vec!["priority/critical".into(), "bug".into()],
            ..SourceItem::default()
        };
        let scope = Scope {
            object: &object,
            namespace: "team",
            namespace_labels: &BTreeMap::new(),
            spawner: Some(&SpawnerFacts::default()),
            workspace: None,
            user: None,
            tracked: Some(&item.facts()),
        };
        fill(&policies(sections), &scope)
    }

    #[test]
    fn only_what_waits_is_made_and_by_the_same_rules() {
        let strong = json!({"engine": "GoTemplate", "fromSource": true, "labels": {"title": "{{.Title}}", "first": "{{index .Labels 0}}"}});
        let weak = json!({"labels": {"title": "weak", "other": "weak"}});
        let filling = filled(&[strong.clone(), weak.clone()], &json!({}), "label:title");
        let title = crate::metadata::label::legal("Crash {{.URL}}");
        let gone = json!({"taskgate.dev/metadata-pending": null});
        assert_eq!(filling.change, json!({"labels": {"title": title}, "annotations": gone}));
        // What somebody set meanwhile stays, unless it is overridden.
        let own = json!({"title": "mine"});
        assert_eq!(
            filled(std::slice::from_ref(&strong), &own, "label:title").change,
            json!({"annotations": gone})
        );
        let mut overriding = strong.clone();
        overriding["override"] = json!(true);
        assert_eq!(
            filled(&[overriding], &own, "label:title").change["labels"],
            json!({"title": title})
        );
        // A weaker policy helps out where the stronger has no value.
        let mut missing = strong.clone();
        missing["labels"]["title"] = json!("{{index .Labels 7}}");
        assert_eq!(
            filled(&[missing.clone(), weak], &json!({}), "label:title").change["labels"],
            json!({"title": "weak"})
        );
        let left_out = filled(&[missing], &json!({}), "label:title").left_out.unwrap();
        assert!(left_out.starts_with("title: line 1, column"), "{left_out}");
    }

    #[test]
    fn what_propagates_is_still_to_be_copied() {
        let section = json!({"engine": "GoTemplate", "fromSource": true, "labels": {"first": "{{index .Labels 0}}"}, "propagate": ["Pod"]});
        let filling = filled(std::slice::from_ref(&section), &json!({}), "label:first");
        assert_eq!(
            filling.change["annotations"],
            json!({"taskgate.dev/metadata-pending": "copy"})
        );
        let object = json!({"metadata": {"labels": {"first": "x"}}});
        let scope = Scope {
            object: &object,
            namespace: "team",
            namespace_labels: &BTreeMap::new(),
            spawner: None,
            workspace: None,
            user: None,
            tracked: None,
        };
        let set = policies(&[section]);
        let mut job = json!({"spec": {"suspend": true, "template": {}}});
        let patch = json!({"spec": {"template": {"metadata": {"labels": {"first": "x"}}}}});
        assert_eq!(copy(&set, &scope, &job, true), Some(patch));
        assert_eq!(copy(&set, &scope, &job, false), None);
        job["status"]["startTime"] = json!("2026-11-21T12:00:00Z");
        assert_eq!(copy(&set, &scope, &job, true), None);
        job = json!({"spec": {"suspend": false, "template": {}}});
        assert_eq!(copy(&set, &scope, &job, true), None);
    }
}
