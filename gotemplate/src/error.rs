//! What can go wrong, and where.

use std::fmt;

/// A place in a template's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
}

impl Position {
    /// The place of byte `offset` in `source`.
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

/// The source is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Where.
    pub position: Position,
    /// What is wrong, in one line.
    pub message: String,
}

/// A render ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderError {
    /// Where.
    pub position: Position,
    /// What kind of thing went wrong.
    pub cause: Cause,
    /// What went wrong, in one line.
    pub message: String,
}

/// The kinds of things that end a render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Something that the template needs is not in the data.
    Missing,
    /// A limit was reached.
    Limit,
    /// The template does with the data what cannot be done.
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

/// A parse error whose place is still an offset.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) at: usize,
    pub(crate) message: String,
}

impl Wrong {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

/// What a function has against its arguments; the evaluator knows the place.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    pub(crate) message: String,
}

impl Fault {
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

    /// The fault, found at byte `at` of the source.
    pub(crate) fn at(self, at: usize) -> Failure {
        Failure { at, fault: self }
    }
}

/// A fault and its place.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) at: usize,
    pub(crate) fault: Fault,
}
