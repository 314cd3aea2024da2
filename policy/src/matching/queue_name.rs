//! A queue's or a priority class' name, as a policy gives it.

use taskgate_api::task_policy::TemplateEngine;

use crate::{
    kubernetes::clip,
    template::{Moment, Rendering, Templates, Text},
};

/// The longest name. Kueue's objects may have longer ones, but a Job names them by label, and a label value ends here.
const MAX_NAME: usize = 63;
/// The longest text that a template may give, in bytes, before it is trimmed.
const MAX_TEXT: usize = 1024;

/// A name: as it is written, or as a template gives it for a Task.
#[derive(Debug)]
pub(crate) struct QueueName(Text);

impl QueueName {
    /// Reads `source`, one of `templates`, whose language is `engine`. Errors with what is wrong with it, in one line.
    pub(crate) fn compile(templates: &Templates, engine: TemplateEngine, source: &str) -> Result<Self, String> {
        let text = templates.tried(engine, source, MAX_TEXT, Moment::Job)?;
        if let Text::Literal(name) = &text {
            legal(name)?;
        }
        Ok(Self(text))
    }

    /// The name, a legal one. Errors with why there is none, in one line.
    pub(crate) fn render(&self, rendering: &mut Rendering<'_>) -> Result<String, String> {
        let text = rendering.render(&self.0, MAX_TEXT).map_err(|failure| failure.message)?;
        match text.trim() {
            "" => Err("the template gives nothing for this Task".to_owned()),
            name => legal(name).map(|()| name.to_owned()),
        }
    }
}

/// Whether `name` may be the name of a queue or a priority class. Kueue refuses a Job with any other (kueue §2), and a
/// Job that is refused keeps Kelos' branch lock.
pub(crate) fn legal(name: &str) -> Result<(), String> {
    if taskgate_api::is_object_name(name) && name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a DNS-1123 subdomain of at most {MAX_NAME} characters, which Kueue demands",
        clip(name, 64)
    ))
}

#[cfg(test)]
mod tests {
    use taskgate_api::{TaskPolicySpec, task_policy::MetadataPolicy};

    use super::*;

    #[test]
    fn names_are_checked_when_they_are_read() {
        let compile = |engine, source: &str| {
            let section = MetadataPolicy {
                engine: Some(engine),
                ..MetadataPolicy::default()
            };
            let spec = TaskPolicySpec {
                queue_name: Some(source.to_owned()),
                metadata: Some(section),
                ..TaskPolicySpec::default()
            };
            QueueName::compile(&Templates::of(&spec).unwrap(), engine, source)
        };
        let (tera, go) = (TemplateEngine::Tera, TemplateEngine::GoTemplate);
        for good in ["agents", "a.b-c", "7", &"q".repeat(63)] {
            for engine in [tera, go] {
                let name = compile(engine, good).unwrap();
                assert!(matches!(&name.0, Text::Literal(name) if name == good));
            }
        }
        for (engine, bad, part) in [
            (tera, "", "not a DNS-1123 subdomain"),
            (tera, "two words", "not a DNS-1123 subdomain"),
            (tera, "Agents", "not a DNS-1123 subdomain"),
            (go, "-a", "not a DNS-1123 subdomain"),
            (go, &"q".repeat(64), "at most 63 characters"),
            (tera, &"q".repeat(300), "at most 63 characters"),
            (tera, "{{ open", "line 1, column"),
            (
                tera,
                "a-\n{{ task.spec.model | nope }}",
                "line 2, column 22: the filter nope is not supported",
            ),
            (tera, "{{ nothing }}", "nothing is not known"),
            (tera, "{{ user }}", "is not defined"),
            (tera, "{{ item.title }}", "is not defined"),
            (tera, "{{.task.spec.model}}", "line 1, column"),
            (go, "{{ .open", "line 1"),
            (go, "{{.user}}", "user"),
            (go, "{{.Title}}", "Title"),
        ] {
            let error = compile(engine, bad).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{bad}: {error}");
        }
    }
}
