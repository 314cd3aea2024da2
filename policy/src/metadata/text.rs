//! A value as a policy writes it, compiled: once when the policy is read, never per request.

use std::borrow::Cow;

use taskgate_api::task_policy::TemplateEngine;

use super::{
    context::Context,
    engine::{self, Failure, Template},
    sample::{self, Moment},
};

/// A text that stands for itself, or a template that gives one.
#[derive(Debug)]
pub(crate) enum Text {
    Literal(String),
    Template(Box<dyn Template>),
}

impl Text {
    /// Compiles `source`, and renders it over a sample of what is known at `moment`; `max`: bytes. Errors with what is
    /// wrong and where, in one line.
    pub(crate) fn compile(engine: TemplateEngine, source: &str, max: usize, moment: Moment) -> Result<Self, String> {
        if engine::is_literal(source) {
            return Ok(Self::Literal(source.to_owned()));
        }
        let template = engine::compile(engine, source)?;
        sample::try_on(&*template, source, max, moment)?;
        Ok(Self::Template(template))
    }

    /// The text over what `context` gives, of at most `max` bytes; a literal asks for none.
    pub(crate) fn render<'c>(
        &self,
        context: impl FnOnce() -> &'c Context,
        max: usize,
    ) -> Result<Cow<'_, str>, Failure> {
        match self {
            Self::Literal(text) => Ok(Cow::Borrowed(text)),
            Self::Template(template) => template.render(context(), max).map(Cow::Owned),
        }
    }
}
