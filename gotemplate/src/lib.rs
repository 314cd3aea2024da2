//! Go's `text/template` for values that come from untrusted places: pure, bounded, and equal to Go in what it renders.
//!
//! A [`Template`] is parsed once; [`Template::render`] runs it over a JSON value as Go runs it over what `encoding/json`
//! gives (`map[string]any`, `[]any`, `string`, `int`, `float64`, `bool`, `nil`). There is no IO, no clock and no
//! randomness, and every render is bounded by [`Limits`], so that a template that would run for minutes ends at its limit.
//!
//! ```text
//! parse   from source to a syntax tree
//! exec    runs the tree over data
//! fmt     Go's fmt: print, println, printf
//! value   the values in a template
//! error   errors with positions
//! ```
//!
//! Imports no other crate of the workspace. Called by `taskgate-policy`.
//!
//! # Scope
//!
//! Actions, pipelines, variables, `if`, `with`, `range`, `break`, `continue`, `define`, `template`, `block`, comments and
//! trim markers; the functions `and or not len index slice print printf println eq ne lt le gt ge`.
//!
//! Refused by name when parsed: `html`, `js`, `urlquery` (the output is never a web page), `call` (the data has
//! no functions), complex and hexadecimal floating-point constants; in `printf`, the verbs `%T`, `%p`, `%w`, the flag `#`
//! and argument indexes such as `%[1]d`. A format that is computed is refused when it is rendered.
//!
//! Whether this is what Go does is checked against Go itself, by `e2e/gotemplate`.
//!
//! # Why not an existing crate
//!
//! `gtmpl` (0.7.1, the only widespread one) supports neither `break` and `continue` nor `slice` and `else with`, counts
//! characters where Go counts bytes, and bounds nothing.

mod error;
mod exec;
mod fmt;
mod parse;
mod value;

pub use error::{Cause, ParseError, Position, RenderError};
pub use exec::Limits;
pub use fmt::Unprintable;
pub use parse::Template;

impl Template {
    /// Parses `source`, or returns the first error with its position.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        parse::parse(source)
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

    /// Renders like [`Self::render`], and returns the number of steps; more than the limit if that ended the render.
    pub fn render_counting(
        &self,
        data: &serde_json::Value,
        limits: Limits,
        unprintable: Unprintable,
    ) -> (Result<Vec<u8>, RenderError>, u32) {
        exec::render(self, data, limits, unprintable)
    }
}
