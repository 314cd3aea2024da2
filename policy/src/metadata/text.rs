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
        let text = Self::parse(engine, source)?;
        text.try_on(source, max, moment)?;
        Ok(text)
    }

    /// Compiles `source`, and renders nothing. Errors with what is wrong and where, in one line.
    pub(crate) fn parse(engine: TemplateEngine, source: &str) -> Result<Self, String> {
        if engine::is_literal(source) {
            return Ok(Self::Literal(source.to_owned()));
        }
        Ok(Self::Template(engine::compile(engine, source)?))
    }

    /// Renders the text, whose source is `source`, over a sample of what is known at `moment`; `max`: bytes. Errors with
    /// what is wrong and where, in one line.
    pub(crate) fn try_on(&self, source: &str, max: usize, moment: Moment) -> Result<(), String> {
        match self {
            Self::Literal(_) => Ok(()),
            Self::Template(template) => sample::try_on(&**template, source, max, moment),
        }
    }

    /// What a render may cost, in the units of [`super::weight`].
    pub(crate) fn weight(&self) -> u32 {
        match self {
            Self::Literal(_) => 0,
            Self::Template(template) => template.weight(),
        }
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
