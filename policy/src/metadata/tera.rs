//! Tera templates: `{{ item.url }}`.
//!
//! Tera reaches neither files nor network, environment, clock or randomness: those are in crates that are not used here,
//! and includes have nothing to include. What it does not bound itself is bounded before it runs ([`scan`]) and in the
//! filters that make text longer ([`filters`]): nothing could stop it while it runs.

use tera::{ErrorKind, Tera};

use super::{
    context::{Context, ITEM_FIELDS},
    engine::{Cause, Failure, Template},
    filters, scan,
};
use crate::bounded::Bounded;

/// The name of the one template in its engine.
const NAME: &str = "value";
/// The names that a template may begin with, besides those of the item's fields.
const ROOTS: [&str; 6] = ["item", "task", "spawner", "workspace", "namespace", "user"];

/// A compiled Tera template, and what it weighs.
pub(super) struct TeraTemplate {
    tera: Tera,
    weight: u32,
}

impl std::fmt::Debug for TeraTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TeraTemplate").finish_non_exhaustive()
    }
}

impl TeraTemplate {
    pub(super) fn compile(source: &str) -> Result<Self, String> {
        let weight = scan::check(source)?;
        let mut tera = Tera::new();
        filters::register(&mut tera);
        tera.add_raw_template(NAME, source)
            .map_err(|error| failure(&error).message)?;
        let variables = tera
            .get_template_variables(NAME)
            .map_err(|error| failure(&error).message)?;
        let known = |name: &str| ROOTS.contains(&name) || ITEM_FIELDS.iter().any(|(_, field)| *field == name);
        if let Some(unknown) = variables.iter().find(|name| !known(name)) {
            return Err(format!("{unknown} is not known; there are {}", ROOTS.join(", ")));
        }
        Ok(Self { tera, weight })
    }
}

impl Template for TeraTemplate {
    fn weight(&self) -> u32 {
        self.weight
    }

    fn render(&self, context: &Context, max: usize) -> Result<String, Failure> {
        let mut output = Bounded::new(max);
        match self.tera.render_to(NAME, context.tera(), &mut output) {
            Ok(()) => Ok(output.into_text()),
            Err(_) if output.is_full() => Err(Failure {
                cause: Cause::Limit,
                message: format!("the output is longer than {max} bytes"),
            }),
            Err(error) => Err(failure(&error)),
        }
    }
}

/// What Tera has to say, in one line and with the place.
fn failure(error: &tera::Error) -> Failure {
    let (ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report)) = error.kind() else {
        return Failure {
            cause: Cause::Misuse,
            message: error.to_string().lines().next().unwrap_or_default().to_owned(),
        };
    };
    // "Field `x` is not defined. Available fields: …": the list would tell a creator what others keep in their labels.
    let message = report.message();
    let message = message.split(" Available ").next().unwrap_or(message);
    let missing = message.contains("is not defined") || message.contains("undefined");
    let limit = message.contains(filters::TOO_LARGE);
    let span = report.span();
    Failure {
        cause: match (missing, limit) {
            (true, _) => Cause::Missing,
            (_, true) => Cause::Limit,
            _ => Cause::Misuse,
        },
        message: format!(
            "line {}, column {}: {}",
            span.start_line,
            span.start_col + 1,
            message.lines().next().unwrap_or_default().trim_end_matches('.')
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context() -> Context {
        let text = "x".repeat(4096);
        Context::from(json!({
            "item": {"url": "https://x", "title": "{{ item.url }} & <b>", "labels": ["priority/critical", "bug"], "number": 42},
            "task": {"metadata": {"labels": {"team": "blue", "a.b/c": "d"}, "annotations": {"text": text}}},
            "spawner": {"metadata": {"name": "fixer", "labels": {}}}, "user": "me",
        }))
    }

    fn render(source: &str) -> Result<String, String> {
        let template = TeraTemplate::compile(source)?;
        template.render(&context(), 4096).map_err(|failure| failure.message)
    }

    #[test]
    fn what_templates_are_for() {
        for (source, expected) in [
            ("{{ item.url }}", "https://x"),
            ("{{ item.title }}", "{{ item.url }} & <b>"),
            ("{{ item.labels[0] }}", "priority/critical"),
            (
                "{{ item.labels | first | replace(from=\"priority/\", to=\"\") }}",
                "critical",
            ),
            (
                "{% for l in item.labels %}{{ l }};{% endfor %}",
                "priority/critical;bug;",
            ),
            (
                "{% for l in item.labels %}{% if l is starting_with(pat=\"priority/\") %}{{ l }}{% endif %}{% endfor %}",
                "priority/critical",
            ),
            ("{{ task.metadata.labels[\"a.b/c\"] }}", "d"),
            ("{{ spawner.metadata.labels.team | default(value=\"none\") }}", "none"),
            ("{% if item.number > 40 %}big{% else %}small{% endif %}", "big"),
            ("{{ item.number ~ \"-\" ~ user }}", "42-me"),
            ("{{ item.labels | join(sep=\",\") }}", "priority/critical,bug"),
            ("{# for notes #}{{ user }}", "me"),
            ("{{ \"a {% for %} in a text\" }}", "a {% for %} in a text"),
        ] {
            assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn what_is_refused_says_where_and_why() {
        for (source, message) in [
            ("{{ item.url", "line 1, column"),
            (
                "a\n{{ item.url | nope }}",
                "line 2, column 15: the filter nope is not supported",
            ),
            ("{{ nope }}", "nope is not known; there are item, task"),
            (
                "{% include \"x\" %}",
                "line 1, column 4: {% include %} is not supported",
            ),
            ("{% set x = 1 %}", "{% set %} is not supported"),
            ("{% macro x() %}{% endmacro %}", "{% macro %} is not supported"),
            ("{{ get_env(name=\"HOME\") }}", "get_env"),
            ("{{ now() }}", "now"),
            ("{{ __tera_context }}", "__tera_context is not supported"),
            (
                "{% for a in range(end=9) %}{% for b in range(end=9) %}{% endfor %}{% endfor %}",
                "a loop in a loop",
            ),
            ("{{ [a for a in range(end=9)] }}", "a loop in an expression"),
            (
                "{% for a in item.url ~ item.url %}{% endfor %}",
                "~ is not supported in what a loop walks",
            ),
            ("{% if item.number %}x", ""),
        ] {
            let error = TeraTemplate::compile(source).unwrap_err();
            assert!(error.contains(message) && !error.contains('\n'), "{source}: {error}");
        }
    }

    #[test]
    fn what_would_be_large_costs_its_limit() {
        let double = "| replace(from=\"x\", to=\"xxxx\")";
        let wide = format!("{{{{ task.metadata.annotations.text {} }}}}", double.repeat(3));
        let long = "{% for n in range(end=100) %}{{ task.metadata.annotations.text }}{% endfor %}";
        for source in [&wide, long, "{{ range(end=1000000) | length }}"] {
            let template = TeraTemplate::compile(source).unwrap();
            let failure = template.render(&context(), 4096).unwrap_err();
            assert_eq!(failure.cause, Cause::Limit, "{source}: {}", failure.message);
        }
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        for source in [
            "{{ item.author }}",
            "{{ item.author.name }}",
            "{{ item.labels[7] }}",
            "{{ task.metadata.labels.size }}",
        ] {
            let failure = TeraTemplate::compile(source)
                .unwrap()
                .render(&context(), 99)
                .unwrap_err();
            assert_eq!(failure.cause, Cause::Missing, "{source}: {}", failure.message);
            assert!(failure.message.starts_with("line 1, column"), "{}", failure.message);
        }
    }
}
