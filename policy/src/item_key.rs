//! `failurePolicy.itemKey`: one memory for what Kelos names anew each time, such as cron ticks and webhook deliveries
//! (kelos T16, T17).

use serde_json::{Value, json};
use taskgate_api::{kelos::Task, metadata::Metadata};
use tera::{Context, Tera};

use crate::{bounded::Bounded, identity::Surroundings, patch::Edit};

/// The name of the one template in its engine.
const TEMPLATE: &str = "itemKey";
/// The longest key that a template may give, in bytes.
const MAX_OUTPUT: usize = 1024;
/// What a template may know.
const KNOWN: [&str; 3] = ["task", "spawner", "namespace"];

/// A compiled `itemKey`.
#[derive(Clone)]
pub(crate) struct ItemKey(Tera);

impl std::fmt::Debug for ItemKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ItemKey").finish_non_exhaustive()
    }
}

impl ItemKey {
    /// Compiles `template`. Errors with what is wrong with it, in one line.
    ///
    /// Only expressions are allowed: without loops and macros a template's cost is bounded by its length.
    pub(crate) fn compile(template: &str) -> Result<Self, String> {
        if template.contains("{%") {
            return Err("only {{ expressions }} are allowed, no {% blocks %}".to_owned());
        }
        let mut tera = Tera::new();
        tera.add_raw_template(TEMPLATE, template)
            .map_err(|error| one_line(&error))?;
        let variables = tera
            .get_template_variables(TEMPLATE)
            .map_err(|error| one_line(&error))?;
        if let Some(unknown) = variables.iter().find(|name| !KNOWN.contains(name)) {
            return Err(format!("{unknown} is not known; there are task, spawner and namespace"));
        }
        Ok(Self(tera))
    }

    /// The key that the template gives for `task`. Errors with the reason, in one line.
    pub(crate) fn render(&self, task: Task<'_>, object: &Value, known: &Surroundings<'_>) -> Result<String, String> {
        let spawner = json!({"metadata": {"name": task.spawner().unwrap_or("-"), "labels": known.spawner_labels}});
        let namespace = json!({"metadata": {"name": known.namespace, "labels": known.namespace_labels}});
        let mut context = Context::new();
        context.insert("task", &seen(task, object, known.planned));
        context.insert("spawner", &spawner);
        context.insert("namespace", &namespace);
        let mut output = Bounded::new(MAX_OUTPUT);
        self.0
            .render_to(TEMPLATE, &context, &mut output)
            .map_err(|error| one_line(&error))?;
        let text = output.into_text();
        match text.trim() {
            "" => Err("the template gives nothing for this Task".to_owned()),
            key => Ok(key.to_owned()),
        }
    }
}

/// What a template sees of a Task: what its creator wrote and what the policy adds to it, so that a second pass sees the
/// same. The maps are always there.
fn seen(task: Task<'_>, object: &Value, planned: &[Edit]) -> Value {
    let metadata = Metadata::of(object);
    let map = |name: &str| {
        let map = object
            .pointer(&format!("/metadata/{name}"))
            .filter(|map| map.is_object());
        let mut map = map.cloned().unwrap_or_else(|| json!({}));
        for edit in planned {
            match edit {
                Edit::Label(key, value) if name == "labels" => map[key.as_str()] = value.as_str().into(),
                Edit::Annotation(key, value) if name == "annotations" => map[key.as_str()] = value.as_str().into(),
                _ => {}
            }
        }
        map
    };
    json!({
        "metadata": {"name": metadata.name(), "labels": map("labels"), "annotations": map("annotations")},
        "spec": task.spec(),
    })
}

fn one_line(error: &impl std::fmt::Display) -> String {
    crate::clip(error.to_string().lines().next().unwrap_or_default(), 160)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let task = json!({
            "metadata": {"name": "nightly-20261121-0300", "labels": {"kelos.dev/taskspawner": "nightly"},
                "annotations": {"issue": "7"}},
            "spec": {"prompt": "x".repeat(5_000)},
        });
        let labels = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
        let known = Surroundings {
            namespace: "agents",
            namespace_labels: &labels,
            spawner_labels: Some(&labels),
            planned: &[Edit::Label("size".into(), "xl".into())],
        };
        ItemKey::compile(template)?.render(Task::of(&task), &task, &known)
    }

    #[test]
    fn what_a_template_knows() {
        for (template, expected) in [
            ("{{ spawner.metadata.name }}", "nightly"),
            ("{{ task.metadata.annotations.issue }}", "7"),
            (
                "{{ task.metadata.annotations[\"issue\"] }}/{{ namespace.metadata.name }}",
                "7/agents",
            ),
            ("{{ spawner.metadata.labels.team }}", "blue"),
            ("{{ task.metadata.labels.size }}", "xl"),
            (" literal ", "literal"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        for (template, part) in [
            ("{% for i in range(end=9) %}x{% endfor %}", "no {% blocks %}"),
            ("{{ unknown }}", "unknown is not known"),
            ("{{ task.", ""),
            ("{{ task.metadata.annotations.missing }}", ""),
            ("  ", "gives nothing"),
            ("{{ task.spec.prompt }}", ""),
        ] {
            let error = render(template).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{template}: {error}");
        }
    }
}
