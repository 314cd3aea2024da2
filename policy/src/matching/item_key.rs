//! `failurePolicy.itemKey`: one WorkItem for what Kelos names anew each time, such as cron ticks and webhook deliveries.

use taskgate_api::task_policy::TemplateEngine;

use crate::template::{Rendering, Roots, Templates, Text};

/// The longest key that a template may give, in bytes.
const MAX_OUTPUT: usize = 1024;

/// A compiled `itemKey`.
#[derive(Debug)]
pub(crate) struct ItemKey(Text);

impl ItemKey {
    /// Compiles `source`, one of `templates`. Errors with what is wrong with it, in one line.
    pub(crate) fn compile(templates: &Templates, source: &str) -> Result<Self, String> {
        templates.text(TemplateEngine::Tera, source, Roots::ItemKey).map(Self)
    }

    /// The key that the template gives. Errors with the reason, in one line.
    pub(crate) fn render(&self, rendering: &mut Rendering<'_>) -> Result<String, String> {
        let text = rendering
            .render(&self.0, MAX_OUTPUT)
            .map_err(|failure| failure.message)?;
        match text.trim() {
            "" => Err("the template gives nothing for this Task".to_owned()),
            key => Ok(key.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use taskgate_api::TaskPolicySpec;

    use super::*;
    use crate::{
        issue_source::SpawnerInfo,
        kubernetes::Edit,
        template::{Budget, Sees, TemplateInput},
    };

    fn compile(template: &str) -> Result<ItemKey, String> {
        let spec = json!({"failurePolicy": {"itemKey": template}});
        let spec: TaskPolicySpec = serde_json::from_value(spec).unwrap();
        ItemKey::compile(&Templates::of(&spec).unwrap(), template)
    }

    fn render(template: &str) -> Result<String, String> {
        let task = json!({
            "metadata": {"name": "nightly-20261121-0300", "labels": {"kelos.dev/taskspawner": "nightly"},
                "annotations": {"issue": "7"}},
            "spec": {"model": "x".repeat(5_000)},
        });
        let labels = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
        let spawner = SpawnerInfo {
            labels: labels.clone(),
            ..SpawnerInfo::default()
        };
        let input = TemplateInput {
            object: &task,
            namespace: "agents",
            namespace_labels: &labels,
            spawner: Some(&spawner),
            workspace: None,
            user: None,
            source_fields: None,
        };
        let planned = [Edit::Label("size".into(), "xl".into())];
        let mut rendering = Rendering::new(input, Sees::Planned(&planned), Budget::default());
        compile(template)?.render(&mut rendering)
    }

    #[test]
    fn the_inputs_of_a_template() {
        for (template, expected) in [
            ("{{ spawner.metadata.name }}", "nightly"),
            ("{{ task.metadata.annotations.issue }}", "7"),
            (
                "{{ task.metadata.annotations[\"issue\"] }}/{{ namespace.metadata.name }}",
                "7/agents",
            ),
            ("{{ spawner.metadata.labels.team | upper }}", "BLUE"),
            ("{% if task.metadata.labels.size == \"xl\" %}large{% endif %}", "large"),
            (" literal ", "literal"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn a_refused_template_has_a_reason() {
        for (template, part) in [
            ("{% for i in range(end=9) %}x{% endfor %}", "{% for %} is not supported"),
            ("{{ unknown }}", "unknown is not known"),
            ("{{ item.id }}", "item is not known; there are task, spawner, namespace"),
            ("{{ task.", ""),
            ("{{ task.metadata.annotations.missing }}", ""),
            ("  ", "gives nothing"),
            ("{{ task.spec.model }}", "longer than 1024 bytes"),
        ] {
            let error = render(template).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{template}: {error}");
        }
    }

    /// Nine such filters asked for more memory than there is, in the controller of every new leader.
    #[test]
    fn a_key_that_would_fill_the_memory_is_left_out() {
        let grow = "| replace(from='a', to='aaaaaaaaaa')".repeat(9);
        let error = render(&format!("{{{{ 'aaaaaaaaaa' {grow} }}}}")).unwrap_err();
        assert!(error.contains("larger than a template may make it"), "{error}");
    }
}
