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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {message}")]
pub struct ParseError {
    /// The position.
    pub position: Position,
    /// The error, in one line.
    pub message: String,
}

impl ParseError {
    /// The error at byte `offset` of `source`.
    pub(crate) fn new(source: &str, offset: usize, message: impl Into<String>) -> Self {
        Self {
            position: Position::of(source, offset),
            message: message.into(),
        }
    }
}

/// A render ended with an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {message}")]
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

/// A render error without its position, which the running render knows.
#[derive(Debug)]
pub(crate) struct EvalError {
    pub(crate) cause: Cause,
    pub(crate) message: String,
}

impl EvalError {
    fn new(cause: Cause, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { cause, message }
    }

    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self::new(Cause::Missing, message)
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new(Cause::Limit, message)
    }

    pub(crate) fn misuse(message: impl Into<String>) -> Self {
        Self::new(Cause::Misuse, message)
    }
}
