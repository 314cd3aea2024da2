//! Go's `text/template` for values that come from untrusted places: pure, bounded, and equal to Go in what it renders.
//!
//! A [`Template`] is parsed once; [`Template::render`] runs it over a JSON value as Go runs it over what `encoding/json`
//! gives (`map[string]any`, `[]any`, `string`, `int`, `float64`, `bool`, `nil`). There is no IO, no clock and no
//! randomness, and every render is bounded by [`Limits`], so that a template that would run for minutes costs its limit.
//!
//! # Scope
//!
//! Actions, pipelines, variables, `if`, `with`, `range`, `break`, `continue`, `define`, `template`, `block`, comments and
//! trim markers; the functions `and or not len index slice print printf println eq ne lt le gt ge`.
//!
//! Refused by name when parsed: `html`, `js`, `urlquery` (what is rendered here is never a web page), `call` (the data has
//! no functions), complex and hexadecimal floating-point constants; in `printf`, the verbs `%T`, `%p`, `%w`, the flag `#`
//! and argument indexes such as `%[1]d`. A format that is computed is refused when it is rendered.
//!
//! Whether this is what Go does is checked against Go itself, by `e2e/gotemplate`.
//!
//! # Why not a crate that exists
//!
//! `gtmpl` (0.7.1, the only one of any spread) knows neither `break` and `continue` nor `slice` and `else with`, counts
//! characters where Go counts bytes, and bounds nothing.

use std::collections::BTreeMap;

mod ast;
mod compare;
mod directive;
mod error;
mod eval;
mod float;
mod format;
mod functions;
mod lex;
mod literal;
mod parse;
mod parser;
mod pipeline;
mod print;
mod quote;
mod value;
mod verb;
mod walk;

use ast::Node;
pub use error::{Cause, ParseError, Position, RenderError};

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
    root: Vec<Node>,
    defined: BTreeMap<String, Vec<Node>>,
}

/// What one render may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps: nodes and commands run, passes of loops, and one more for every 64 bytes of text that is made on the way.
    pub steps: u32,
    /// Bytes of output, and of each text that is made on the way.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 10_000,
            bytes: 16 * 1024,
        }
    }
}

/// What happens where Go would print `<no value>`, `<nil>` or `%!d(string=x)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unprintable {
    /// The render ends with an error that says what is not there.
    #[default]
    Refuse,
    /// The text is printed, as Go does.
    Print,
}

impl Template {
    /// Parses `source`. Errors with the first thing that is wrong, and where.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        let (root, defined) = parse::parse(source)?;
        Ok(Self {
            source: source.to_owned(),
            root,
            defined,
        })
    }

    /// Renders the template over `data`.
    ///
    /// Bytes, not text: as in Go, `slice` may cut a character in half.
    pub fn render(
        &self,
        data: &serde_json::Value,
        limits: Limits,
        unprintable: Unprintable,
    ) -> Result<Vec<u8>, RenderError> {
        self.render_counting(data, limits, unprintable).0
    }

    /// The same, and how many steps it took; more than the limit where that was what ended it.
    pub fn render_counting(
        &self,
        data: &serde_json::Value,
        limits: Limits,
        unprintable: Unprintable,
    ) -> (Result<Vec<u8>, RenderError>, u32) {
        walk::render(self, data, limits, unprintable)
    }
}
