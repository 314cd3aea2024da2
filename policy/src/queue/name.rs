//! A queue's or a priority class' name, as a policy gives it.

use taskgate_api::task_policy::TemplateEngine;

use crate::{
    metadata::{Context, Moment, Text},
    names::clip,
};

/// The longest name. Kueue's objects may have longer ones, but a Job names them by label, and a label value ends here.
const MAX_NAME: usize = 63;
/// The longest text that a template may give before it is looked at, in bytes.
const MAX_TEXT: usize = 1024;

/// A name: as it is written, or as a template gives it for a Task.
#[derive(Debug)]
pub(crate) struct Name(Text);

impl Name {
    /// Reads `source`, whose templates are of `engine`. Errors with what is wrong with it, in one line.
    pub(crate) fn compile(engine: TemplateEngine, source: &str) -> Result<Self, String> {
        let text = Text::compile(engine, source, MAX_TEXT, Moment::Job)?;
        if let Text::Literal(name) = &text {
            legal(name)?;
        }
        Ok(Self(text))
    }

    /// The name, a legal one, over what `context` gives. Errors with why there is none, in one line.
    pub(crate) fn render<'c>(&self, context: impl FnOnce() -> &'c Context) -> Result<String, String> {
        let text = self.0.render(context, MAX_TEXT).map_err(|failure| failure.message)?;
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
    use super::*;

    #[test]
    fn names_are_checked_when_they_are_read() {
        let (tera, go) = (TemplateEngine::Tera, TemplateEngine::GoTemplate);
        for good in ["agents", "a.b-c", "7", &"q".repeat(63)] {
            for engine in [tera, go] {
                let name = Name::compile(engine, good).map(|name| name.render(|| unreachable!("a literal")));
                assert_eq!(name.unwrap().as_deref(), Ok(good));
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
            (tera, "{{ nobody }}", "nobody is not known"),
            (tera, "{{ user }}", "is not defined"),
            (tera, "{{ item.title }}", "is not defined"),
            (tera, "{{.task.spec.model}}", "line 1, column"),
            (go, "{{ .open", "line 1"),
            (go, "{{.user}}", "user"),
            (go, "{{.Title}}", "Title"),
        ] {
            let error = Name::compile(engine, bad).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{bad}: {error}");
        }
    }
}
