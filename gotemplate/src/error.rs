//! Errors of parsing and rendering, with their positions.
//!
//! Imports nothing of this crate. Called by all other modules.

use std::fmt;

/// A position in a template's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
}

impl Position {
    /// The position of byte `offset` in `source`.
    pub(crate) fn of(source: &str, offset: usize) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let start_of_line = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[start_of_line..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The source is not a valid template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The position.
    pub position: Position,
    /// The error, in one line.
    pub message: String,
}

/// A render ended with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderError {
    /// The position.
    pub position: Position,
    /// The cause.
    pub cause: Cause,
    /// The error, in one line.
    pub message: String,
}

/// The cause of a render error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A value that the template needs is not in the data.
    Missing,
    /// A limit is exceeded.
    Limit,
    /// An operation does not apply to its values.
    Misuse,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.message)
    }
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.message)
    }
}

impl std::error::Error for ParseError {}
impl std::error::Error for RenderError {}

/// A parse error at a byte offset.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: usize,
    pub(crate) message: String,
}

impl SyntaxError {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

/// An evaluation error without a position.
#[derive(Debug)]
pub(crate) struct EvalError {
    pub(crate) cause: Cause,
    pub(crate) message: String,
}

impl EvalError {
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self {
            cause: Cause::Missing,
            message: message.into(),
        }
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self {
            cause: Cause::Limit,
            message: message.into(),
        }
    }

    pub(crate) fn misuse(message: impl Into<String>) -> Self {
        Self {
            cause: Cause::Misuse,
            message: message.into(),
        }
    }

    /// The error at byte `at` of the source.
    pub(crate) fn at(self, at: usize) -> LocatedError {
        LocatedError { at, error: self }
    }
}

/// An evaluation error at a byte offset.
#[derive(Debug)]
pub(crate) struct LocatedError {
    pub(crate) at: usize,
    pub(crate) error: EvalError,
}
