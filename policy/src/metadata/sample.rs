//! A render when the policy is written, to catch what only fails when a template runs.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{
    context::{Context, ITEM_FIELDS},
    engine::{Cause, Template},
};

/// An item of which everything is known.
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

/// Renders `template`, whose source is `source`, over the sample. Errors with what is wrong with it.
///
/// What is missing although everything is there is a name that does not exist; but for labels and annotations, whose names
/// nobody knows beforehand, and places in a list, of which a sample says little.
pub(super) fn try_on(template: &dyn Template, source: &str, max: usize) -> Result<(), String> {
    match template.render(&Context::from(SAMPLE.clone()), max) {
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
