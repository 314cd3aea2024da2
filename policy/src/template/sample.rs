//! A render when the policy is written, to catch what only fails when a template runs.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{
    Budget, Cause, Text,
    context::{Context, ITEM_FIELDS, SOURCE_FIELDS},
};

/// When a template is rendered: it decides which inputs there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A Task gets its labels and annotations.
    Task,
    /// Kelos creates the Job of a Task: neither the Task's creator nor the fields of the issue source are known.
    Job,
}

/// A sample in which every input is known.
static SAMPLE: LazyLock<Value> = LazyLock::new(|| {
    let mut sample = json!({
        "item": {
            "id": "42", "title": "Fix the login page", "kind": "Issue", "number": 42,
            "labels": ["priority/critical", "bug", "size/XL", "area/web", "team/blue", "a", "b", "c", "d", "e"],
            "url": "https://github.com/acme/shop/issues/42", "branch": "main", "author": "octocat",
            "body": "It breaks.", "time": "2026-11-21T03:00:00Z", "schedule": "0 3 * * *",
        },
        "task": {
            "metadata": {"name": "fixer-42", "namespace": "agents", "labels": {}, "annotations": {}},
            "spec": {
                "type": "claude-code", "model": "m", "effort": "high", "image": "i", "branch": "main",
                "upstreamRepo": "acme/shop", "workspaceRef": {"name": "shop"}, "workerPoolRef": {"name": "pool"},
                "agentConfigRefs": [{"name": "a"}], "dependsOn": ["fixer-41"],
            },
        },
        "spawner": {"metadata": {"name": "fixer", "labels": {}}},
        "workspace": {"name": "shop", "repo": "https://github.com/acme/shop", "ref": "main"},
        "namespace": {"name": "agents", "labels": {}, "metadata": {"name": "agents", "labels": {}}},
        "user": "system:serviceaccount:agents:kelos-spawner",
    });
    for (field, name) in ITEM_FIELDS {
        sample[name] = sample["item"][field].clone();
    }
    sample
});
/// The sample for a Job.
static JOB_SAMPLE: LazyLock<Value> = LazyLock::new(|| {
    let mut sample = SAMPLE.clone();
    let mut remove = |pointer: &str, name: &str| {
        let map = sample.pointer_mut(pointer).and_then(Value::as_object_mut);
        map.map(|map| map.remove(name));
    };
    remove("", "user");
    for (field, name) in ITEM_FIELDS.iter().filter(|(field, _)| SOURCE_FIELDS.contains(field)) {
        remove("/item", field);
        remove("", name);
    }
    sample
});

/// Renders `text`, whose source is `source`, over the sample of `moment`. Errors with what is wrong with it.
///
/// A name that the sample does not have does not exist, except for labels, annotations and entries of lists, which depend on
/// the object.
pub(super) fn try_on(text: &Text, source: &str, max: usize, moment: Moment) -> Result<(), String> {
    if text.is_literal() {
        return Ok(());
    }
    let sample = match moment {
        Moment::Task => &SAMPLE,
        Moment::Job => &JOB_SAMPLE,
    };
    let context = Context::from((**sample).clone());
    match text.render(|| &context, max, &mut Budget::default()) {
        Ok(_) => Ok(()),
        Err(failure) if failure.cause == Cause::Missing => {
            let open = ["labels", "annotations", "Labels"]
                .iter()
                .any(|name| source.contains(name));
            if open { Ok(()) } else { Err(failure.message) }
        }
        Err(failure) => Err(failure.message),
    }
}
