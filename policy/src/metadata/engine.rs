//! The template languages behind one trait.

use std::fmt;

use taskgate_api::task_policy::TemplateEngine;

use super::{context::Context, go::GoTemplate, tera::TeraTemplate};

/// A compiled template.
pub(crate) trait Template: fmt::Debug + Send + Sync {
    /// The text that the template gives over `context`: at most `max` bytes, and at a bounded cost.
    fn render(&self, context: &Context, max: usize) -> Result<String, Failure>;

    /// What a render may cost, in the units of [`super::weight`]; nothing where the steps of a render are counted.
    fn weight(&self) -> u32 {
        0
    }
}

/// Why a template gives nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// Where and why, in one line.
    pub(crate) message: String,
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Something that the template needs is not there.
    Missing,
    /// A limit was reached.
    Limit,
    /// The template does with what is there what cannot be done.
    Misuse,
}

/// Compiles `source`. Errors with what is wrong and where, in one line.
pub(crate) fn compile(engine: TemplateEngine, source: &str) -> Result<Box<dyn Template>, String> {
    Ok(match engine {
        TemplateEngine::Tera => Box::new(TeraTemplate::compile(source)?),
        TemplateEngine::GoTemplate => Box::new(GoTemplate::compile(source)?),
    })
}

/// Whether `source` stands for itself in both languages.
pub(crate) fn is_literal(source: &str) -> bool {
    !["{{", "{%", "{#"].iter().any(|opening| source.contains(opening))
}
